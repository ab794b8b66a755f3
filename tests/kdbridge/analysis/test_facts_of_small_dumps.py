"""What real small dumps tell beside the crash, against what Microsoft's engine prints of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import trio

from kdbridge.analysis.analyst import Analyst
from kdbridge.analysis.held import held_of
from kdbridge.analysis.names import Names
from kdbridge.analysis.processes import process_facts
from kdbridge.analysis.reading import ReadOnce
from kdbridge.analysis.report_json import analysis_document
from kdbridge.analysis.smbios import firmware_texts
from kdbridge.analysis.stopped import stopped_processor
from kdbridge.analysis.system import system_of, times_of
from kdbridge.analysis.threads import current_thread
from kdbridge.discovery import discover
from kdbridge.memory.files import DumpFile
from tests.referee import Kdexec, parse

_UNIX = 116_444_736_000_000_000
"""1970 as a FILETIME."""
_UPTIME = re.compile(r"Uptime: (\d+) days (\d+):(\d\d):(\d\d\.\d{3})")
_ADDRESS = re.compile(r"([0-9a-f]{8})`([0-9a-f]{8})")


def _address(text: str) -> int:
    found = _ADDRESS.search(text)
    assert found is not None
    return int(found[1] + found[2], 16)


@pytest.mark.referee
@pytest.mark.parametrize("name", ["triage_x64.dmp", "triage_arm64.dmp"])
async def test_against_the_engine(shared: Path, kdexec: Kdexec, name: str) -> None:
    path = shared / "data/dumps" / name
    theirs = parse(await trio.to_thread.run_sync(kdexec, "-z", path, "vertarget", ".time", ".process", ".thread"))
    with DumpFile(path) as dump:
        source = ReadOnce(dump)
        target = await discover(source)
        system, times = await system_of(source, target), times_of(target)
        current, _ = await current_thread(source, target, stopped_processor(target), Names(target.modules))
        processes, missing = await process_facts(source, target)
        assert held_of(source, target) is None
    told = theirs["vertarget"].text
    build, processors = re.findall(r"Kernel Version (\d+) MP \((\d+) procs\)", told)[0]
    assert f"build {build} free" in system.windows
    assert system.processors == int(processors)
    assert f"Built by: {system.build_lab}" in told
    assert ("WinNt" in told) == (system.product == "workstation")
    days, hours, minutes, seconds = re.findall(r"Uptime: (\d+) days (\d+):(\d\d):(\d\d\.\d{3})", theirs[".time"].text)[
        0
    ]
    up = ((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds)
    assert times.up is not None
    assert times.up // 10_000 == round(up * 1000)
    assert times.crash is not None
    hour = re.findall(r"session time: .* (\d+):(\d\d):(\d\d\.\d{3}) ", theirs[".time"].text)[0]
    day = (times.crash - _UNIX) // 10_000 % 86_400_000
    assert day == round(((int(hour[0]) * 60 + int(hour[1])) * 60 + float(hour[2])) * 1000)
    assert current is not None
    assert current.address == _address(theirs[".thread"].text)
    assert [(one.address, one.process_id) for one in processes] == [(_address(theirs[".process"].text), 4)]
    assert "processes" in [one.what for one in missing]  # the others are not in the file, and it is said


async def test_hardware(shared: Path) -> None:
    """The texts stand in the files' secondary data as they are here (strings of the blobs)."""
    with DumpFile(shared / "data/dumps/triage_arm64.dmp") as dump:
        texts = dict((await system_of(dump, await discover(dump))).firmware)
    raw = (shared / "data/dumps/triage_arm64.dmp").read_bytes()
    assert all(text.encode("ascii") in raw for text in (texts["manufacturer"], texts["product"]))
    assert not [what for what in texts if "serial" in what.lower() or "uuid" in what.lower()]
    with DumpFile(shared / "data/dumps/triage_x64.dmp") as dump:
        system = await system_of(dump, await discover(dump))
    assert (system.vendor, system.megahertz) == ("AuthenticAMD", 3593)


def test_tables_that_lie() -> None:
    """DSP0134: type, length, handle, the numbers of texts, then texts that end with two NULs."""
    system = bytes([1, 8, 0, 1, 1, 2, 0, 9]) + b"Maker\0Machine\0\0"
    head = bytes([0, 3, 1, 0])
    whole = head + len(system).to_bytes(4, "little") + system
    assert dict(firmware_texts(whole)) == {"manufacturer": "Maker", "product": "Machine"}
    for size in range(len(whole) - 1):
        assert firmware_texts(whole[:size]) == ()
    assert firmware_texts(head + b"\xff" * 4 + bytes(5000)) == ()
    assert firmware_texts(head + b"\xff" * 4 + bytes([1, 0, 0, 0]) * 5000) == ()


_NAMED_BY = {
    "print_buffer": "the kernel's print buffer",
    "current_thread.thread_id": "ids of threads",
    "modules[].version": "versions and symbol files of modules",
    "modules[].company": "versions and symbol files of modules",
    "modules[].description": "versions and symbol files of modules",
    "modules[].microsoft": "versions and symbol files of modules",
    "modules[].pdb": "versions and symbol files of modules",
    "system.system_root": "the system's folder",
    "system.memory": "physical memory runs",
    "processes[].threads": "threads",
}
"""Of a document, what is null or empty for want of memory, and what is said of it."""


def _values(document: object, path: str) -> list[object]:
    found = [document]
    for part in path.split("."):
        key = part.removesuffix("[]")
        found = [one[key] for one in found if isinstance(one, dict)]
        if part.endswith("[]"):
            found = [one for many in found if isinstance(many, list) for one in many]
    return found


@pytest.mark.parametrize("name", ["triage_x64.dmp", "triage_arm64.dmp"])
async def test_nothing_is_passed_over_in_silence(shared: Path, name: str) -> None:
    with DumpFile(shared / "data/dumps" / name) as dump:
        source = ReadOnce(dump)
        document = json.loads(json.dumps(analysis_document(await Analyst(source, await discover(source)).all())))
    missing = {one["what"]: one for one in document["missing"]}
    lacking = {path for path in _NAMED_BY if any(value in (None, []) for value in _values(document, path))}
    assert len(lacking) >= len(_NAMED_BY) - 1  # the memory's size is in one of them
    assert {_NAMED_BY[path] for path in lacking} <= set(missing)
    without = [one for one in document["modules"] if one["version"] is None]
    images = [one for what, one in missing.items() if what.endswith("of modules")]
    assert sum(len(one["ranges"]) for one in images) >= len(without) > 100 and len(images) <= 3
    for what in ("threads", "the kernel's print buffer"):
        assert missing[what]["ranges"], what
