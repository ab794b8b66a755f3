"""Files: short enough to be one idea, tested by a file of their own, and naming nobody's machine."""

from __future__ import annotations

import ast
import re

import pytest

from tests.house.tree import ROOT, parsed, sources, table, tracked

_LONGEST = 400

# Each is written so that it does not match itself.
_PLACES = re.compile(rb"/[w]ork/|/[r]oot/|/[h]ome/[a-z]|/[t]mp/[A-Za-z]|[p]ypi\.org|files\.[p]ythonhosted|[.]library\b")


def _lines(name: str) -> int:
    return len((ROOT / name).read_text(encoding="utf-8").splitlines())


def test_files_are_short_or_say_why_not() -> None:
    allowed = table("long_files.toml")
    lengths = {name: _lines(name) for name in tracked() if name.endswith(".py")}
    long = {name: lines for name, lines in lengths.items() if lines > _LONGEST}
    assert {name: n for name, n in long.items() if name not in allowed} == {}, "split them, or justify them by name"
    assert sorted(set(allowed) - set(long)) == [], "short again or gone: take these out of long_files.toml"
    grown = {name: n for name, n in long.items() if n > allowed[name]["lines"]}
    assert grown == {}, "past the ceiling in long_files.toml, which is only ever lowered"
    assert [name for name, entry in allowed.items() if not entry["reason"].strip()] == []


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for name in tracked():
        for number, line in enumerate((ROOT / name).read_bytes().split(b"\n"), start=1):
            if place := _PLACES.search(line):
                found.append(f"{name}:{number}: {place[0].decode()}")
    assert found == []


def _has_code(name: str) -> bool:
    """False for a file that holds a docstring, imports and __all__ only: there is nothing to test in it."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, definitions) for node in ast.walk(parsed(name)))


def _tests_of(name: str) -> re.Pattern[str]:
    """Where a file's tests are: at the same place under tests/, in test_<file>.py or test_<file>_<aspect>.py."""
    folder, _, file = name.rpartition("/")
    stem = folder.rpartition("/")[2] if file == "__init__.py" else file.removesuffix(".py")
    return re.compile(rf"tests/{re.escape(folder)}/(\w+/)?test_{re.escape(stem)}(_\w+)?\.py")


@pytest.mark.parametrize("name", [name for name in sources() if name.startswith("protocol/") and _has_code(name)])
def test_each_file_of_protocol_has_its_tests(name: str) -> None:
    untested = table("untested_files.toml")
    tested = any(_tests_of(name).fullmatch(other) for other in tracked())
    assert tested or name in untested, f"no file like {_tests_of(name).pattern}, and none named in untested_files.toml"
    assert not (tested and name in untested), "has tests now: take it out of untested_files.toml"


def test_the_table_of_untested_files_names_files() -> None:
    assert sorted(set(table("untested_files.toml")) - set(sources())) == []
