"""Windows' own small dumps: what discovery finds in them is what Microsoft's engine prints, of every processor."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import pytest

from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from protocol.arch import architecture_of
from protocol.structure import Structure
from tests.end_to_end.printed import parse_bug_check, parse_modules, parse_registers
from tests.referee import Kdexec, parse

pytestmark = pytest.mark.referee


_NO_IMAGE = ("Unable to load image", "*** WARNING: Unable to verify timestamp", "*** ERROR: Module load completed")
"""Said of an image in which a processor stands: there are no images here beside the dump."""


def _registers(text: str) -> dict[str, int]:
    return parse_registers("\n".join(line for line in text.splitlines() if not line.startswith(_NO_IMAGE)))


def _as_printed(context: Structure, machine: int) -> dict[str, int]:
    """The registers by the names that the engine prints."""
    architecture = architecture_of(machine)
    assert architecture is not None
    return {architecture.display_names.get(name, name): context[name] for line in architecture.display for name in line}


@pytest.mark.parametrize(
    ("name", "processors", "modules", "unloaded"), [("triage_x64", 16, 151, 4), ("triage_arm64", 8, 245, 11)]
)
async def test_bug_check_registers_and_modules_are_those_that_the_engine_prints(
    kdexec: Kdexec, shared: Path, name: str, processors: int, modules: int, unloaded: int
) -> None:
    path = shared / f"data/dumps/{name}.dmp"
    switches = [f"~{number}s;r" for number in range(processors)]
    printed = parse(kdexec("-z", path, ".bugcheck", "lm", *switches))
    with DumpFile(path) as dump:
        target = await discover(dump)
        assert dump.layout.shortcomings == ()
    assert (target.bug_check_code, *target.bug_check_parameters) == parse_bug_check(printed[".bugcheck"].text)
    assert len(target.processors) == processors
    for processor, command in zip(target.processors, switches, strict=True):
        assert processor.context is not None and processor.special_registers is not None
        seen = _registers(printed[command].text)
        at = seen.pop("at", None)
        assert len(seen) >= 24
        assert {**seen} == _as_printed(processor.context, target.version.machine_type), command
        # Where the page of the program counter is not in the file, the engine disassembles nothing.
        assert at in (None, seen.get("rip", seen.get("pc")))
    listed = parse_modules(printed["lm"].text)
    assert len(listed.modules) == len(target.modules) == modules
    assert sorted(listed.modules.values()) == sorted((one.base, one.base + one.size) for one in target.modules)
    by_base = {base: short for short, (base, _) in listed.modules.items()}
    for one in target.modules[1:]:
        assert by_base[one.base] == PureWindowsPath(one.name).stem.replace(".", "_").replace("-", "_"), one
    assert by_base[target.modules[0].base] == "nt"
    assert listed.unloaded == [(one.name, one.start, one.end) for one in target.unloaded_modules]
    assert len(listed.unloaded) == unloaded
