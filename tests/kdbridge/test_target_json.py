"""target.json: all that discovery found, and back, to the last bit; whatever else is named as damaged."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio

from kdbridge.discovery import discover
from kdbridge.errors import SnapshotError
from kdbridge.target import Target
from kdbridge.target_json import SCHEMA, target_from_json, target_to_json
from tests.kdbridge.captured import machine
from tests.kdbridge.simulated import SimulatedSource

_OPTIONS = [{}, {"build": 3790}, {"build": 22621, "encoded_kdbg": True}, {"processors": 64, "memory_size": 64 << 20}]


def _target(**options: object) -> Target:
    return trio.run(discover, SimulatedSource(machine(**options)))


@pytest.mark.parametrize("options", _OPTIONS, ids=str)
def test_what_was_written_is_read(options: dict) -> None:
    target = _target(**options)
    text = json.dumps(target_to_json(target))
    assert target_from_json(json.loads(text)) == target


def test_a_target_of_which_little_is_known_survives_too() -> None:
    target = replace(
        _target(), kdbg=None, runs=None, stop=None, shared_data=None, directory_table_base=None,
        bug_check_code=None, break_status=None, processors=(), modules=(), unloaded_modules=(), build_lab="",
    )  # fmt: skip
    assert target_from_json(json.loads(json.dumps(target_to_json(target)))) == target


def test_addresses_are_hexadecimal_and_nothing_is_a_float() -> None:
    target = _target()
    document = json.loads(json.dumps(target_to_json(target)))
    assert document["schema"] == SCHEMA and document["architecture"] == "x64"
    assert document["directory_table_base"] == hex(target.directory_table_base or 0)
    assert document["modules"][0]["base"] == hex(target.modules[0].base)
    assert not [value for _, value in _leaves(document) if isinstance(value, float)]


def _leaves(value: object, path: tuple = ()) -> Iterator[tuple[tuple, object]]:
    children: Iterator = iter(())
    if isinstance(value, dict):
        children = iter(value.items())
    elif isinstance(value, list):
        children = iter(enumerate(value))
    else:
        yield path, value
    for key, child in children:
        yield from _leaves(child, (*path, key))


def _set(document: dict, path: tuple, value: object) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


_WRONG: list[object] = [None, True, 7, -1, 1.5, "", "zz", "0x" + "f" * 17, "-0x1", [], {}, [[]], "0x1", "x" * 1000]


def _problem(document: dict) -> str:
    """What is wrong with it, in the words of the error; empty where it is a target."""
    try:
        assert isinstance(target_from_json(document), Target)
    except SnapshotError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("seed", range(3))
def test_any_other_value_anywhere_is_damage_or_another_target(seed: int) -> None:
    rng = random.Random(f"json {seed}")
    document = json.loads(json.dumps(target_to_json(_target())))
    leaves = [path for path, _ in _leaves(document)]
    problems = []
    for _ in range(80):
        changed = copy.deepcopy(document)
        path = rng.choice(leaves)
        _set(changed, path[: rng.randrange(1, len(path) + 1)], rng.choice(_WRONG))
        problems.append(_problem(changed))
    assert all(text.startswith("target.json ") for text in problems if text), f"seed {seed}: {problems}"
    assert sum(map(bool, problems)) > 30


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("directory_table_base",), "0x1" + 16 * "0", "a hexadecimal number of at most 64 bits"),
        (("directory_table_base",), "1aa000", "a hexadecimal number of at most 64 bits"),
        (("directory_table_base",), "0x1_0", "a hexadecimal number of at most 64 bits"),
        (("directory_table_base",), 4096, "a hexadecimal number of at most 64 bits"),
        (("runs",), [["0x1", "0xffffffffffffffff"]], "a run of pages below 52 bits"),
        (("runs",), [["0x1"]], "two numbers"),
        (("runs",), {}, "a list"),
        (("kdbg", "block"), [], "a structure"),
        (("kdbg", "block", "structure"), ["KDBG"], "a string"),
        (("kdbg", "block", "structure"), "EPROCESS", "a structure that this version knows"),
        (("kdbg", "block", "bytes"), "0g", "the bytes of a structure"),
        (("kdbg", "block", "bytes"), "000", "the bytes of a structure"),
        (("bug_check_parameters",), ["0x0"] * 5, "4 values"),
        (("kdbg", "encoded"), "true", "true or false"),
        (("build_lab",), 19041, "a string"),
        (("modules",), "none", "a list"),
        (("stop",), 3, "an object"),
    ],
)
def test_damage_is_named_by_its_place(path: tuple, value: object, text: str) -> None:
    document = json.loads(json.dumps(target_to_json(_target())))
    _set(document, path, value)
    problem = _problem(document)
    assert problem.startswith("target.json is damaged: target."), problem
    assert str(path[0]) in problem and text in problem, problem


def test_a_missing_field_is_named() -> None:
    document = json.loads(json.dumps(target_to_json(_target())))
    del document["modules"][2]["base"]
    with pytest.raises(SnapshotError, match=r"target\.json is damaged: target\.modules\[2\] should be also base"):
        target_from_json(document)


@pytest.mark.parametrize("schema", [0, 2, "1", None, [1]])
def test_another_schema_is_named(schema: object) -> None:
    with pytest.raises(SnapshotError, match=r"has schema .*; this version knows 1"):
        target_from_json({"schema": schema})
