"""The whole analysis, over simulated machines whose truth is known, real dumps, and sources that have nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from kdbridge.analysis.analyst import Analyst
from kdbridge.analysis.model import Certainty
from kdbridge.analysis.reading import ReadOnce
from kdbridge.discovery import discover
from kdbridge.errors import TargetLostError
from kdbridge.memory.files import DumpFile
from kdbridge.target import Target
from protocol.address import VirtualAddress
from simulator.kernel import BugCheck, KernelOptions, SimulatedKernel, build_kernel
from tests.dumps import written
from tests.kdbridge.analysis.made_up import MadeUp, target_of
from tests.kdbridge.simulated import SimulatedSource
from tests.kdbridge.taken import scenario, take_over
from tests.simulator.dumped import dump_plan
from tests.simulator.small_dumped import small_dumped, small_machine

_SMALL = KernelOptions(memory_size=32 << 20, content_size=0, processors=3, stopped_processor=1)


class Counting(SimulatedSource):
    """Remembers each byte that was read by its address."""

    def __init__(self, kernel: SimulatedKernel) -> None:
        super().__init__(kernel)
        self.seen: set[int] = set()
        self.twice: set[int] = set()
        plain = self._virtual.read

        async def read(address: VirtualAddress, size: int) -> bytes:
            data = await plain(address, size)
            read_now = set(range(address, address + size))
            self.twice |= self.seen & read_now
            self.seen |= read_now
            return data

        self._virtual.read = read  # type: ignore[method-assign]


async def _analyst(kernel: SimulatedKernel) -> Analyst:
    source = ReadOnce(SimulatedSource(kernel))
    return Analyst(source, await discover(source))


async def test_the_first_screen_of_a_crash() -> None:
    kernel = build_kernel(_SMALL)
    first = await (await _analyst(kernel)).first()
    site = kernel.bug_check[4]
    (driver,) = [one for one in kernel.modules if one.name == "mydrv"]
    assert first.bug_check is not None and first.bug_check.name == "DRIVER_IRQL_NOT_LESS_OR_EQUAL"
    assert first.crash is not None and first.crash.context["rip"] == site
    instruction = first.crash.instructions[0]
    assert (instruction.address, instruction.data) == (site, kernel.read_virtual(site, len(instruction.data)))
    assert first.suspect is not None and (first.suspect.module, first.suspect.place.address) == ("mydrv", site)
    assert first.bucket == f"D1_mydrv+{site - driver.base:x}"
    frames = kernel.processors[1].frames
    (at,) = [number for number, frame in enumerate(frames) if frame.function == "mydrv!ReadBuffer"]
    assert first.stack is not None and first.stack.whole
    assert [one.instruction for one in first.stack.frames] == [one.instruction for one in frames[at:]]
    assert first.stopped == 1 and first.missing == ()
    assert len(first.images) == len(kernel.modules)
    told = {what: (address, data) for what, address, data in first.pieces}
    for address, data in told.values():
        assert data and kernel.read_virtual(address, len(data)) == data
    assert told["code at the crash"][0] == site


async def test_everything() -> None:
    kernel = build_kernel(_SMALL)
    analyst = await _analyst(kernel)
    first, everything = await analyst.first(), await analyst.all()
    for stack, processor in zip(everything.stacks, kernel.processors, strict=True):
        assert stack.processor == processor.number
        mine = [one.instruction for one in stack.frames]
        assert mine == [one.instruction for one in processor.frames][: len(mine)] and stack.whole
    assert {one.process_id for one in everything.processes} >= {one.process_id for one in kernel.processes}
    assert (everything.bucket, everything.bug_check) == (first.bucket, first.bug_check)
    assert everything.crash is not None and first.crash is not None
    assert everything.crash.context == first.crash.context
    assert await analyst.all() is everything, "nothing is done twice"


async def test_nothing_is_read_twice() -> None:
    counting = Counting(build_kernel(_SMALL))
    source = ReadOnce(counting)
    analyst = Analyst(source, await discover(source))
    first = await analyst.first()
    after_first = len(counting.seen)
    everything = await analyst.all()
    assert counting.twice == set()
    assert (first.bytes_read, everything.bytes_read) == (after_first, len(counting.seen))
    assert after_first <= 120_000


@pytest.mark.parametrize(
    ("options", "bucket"),
    [
        (replace(_SMALL, stop="breakpoint"), "NO_BUGCHECK_mydrv+"),
        (replace(_SMALL, stop="running"), "NO_BUGCHECK_nt+"),
        (replace(_SMALL, bug_check=BugCheck(0xC9, (1, 2, 3, 4))), "C9_1_mydrv+"),
    ],
)
async def test_other_stops(options: KernelOptions, bucket: str) -> None:
    kernel = build_kernel(options)
    found = await (await _analyst(kernel)).first()
    assert found.bucket.startswith(bucket)
    assert (found.suspect is None) == (options.stop in ("running", "breakpoint"))
    if found.suspect is not None:
        assert 0 < found.suspect.place.address - kernel.symbols["mydrv!GiveUp"] < 0x100
    elif options.stop == "breakpoint":
        assert found.crash is not None
        assert 0 < found.crash.place.address - kernel.symbols["mydrv!CheckQueue"] < 0x100


async def test_the_bucket_does_not_depend_on_where_images_were_loaded() -> None:
    buckets = set()
    places = set()
    for processors in (1, 2, 4):
        # The same code (it comes from the seed), elsewhere in memory.
        kernel = build_kernel(replace(_SMALL, processors=processors, stopped_processor=0))
        buckets.add((await (await _analyst(kernel)).first()).bucket)
        places.add(kernel.bug_check[4])
    assert len(buckets) == 1


def _blinded(target: Target, **less: object) -> Target:
    return replace(target, **less)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "less",
    [
        {"bug_check_code": None},
        {"kdbg": None},
        {"modules": ()},
        {"processors": ()},
        {"stop": None},
        {"shared_data": None},
        {"kdbg": None, "modules": (), "processors": (), "stop": None, "bug_check_code": None, "shared_data": None},
    ],
    ids=lambda less: "+".join(less),
)
async def test_what_is_not_known_is_missing_and_nothing_fails(less: dict[str, object]) -> None:
    source = ReadOnce(SimulatedSource(build_kernel(_SMALL)))
    target = _blinded(await discover(source), **less)
    analyst = Analyst(source, target)
    await analyst.first()
    found = await analyst.all()
    if "processors" in less:
        assert "the crash context" in [one.what for one in found.missing] or found.crash is not None
    if less.get("bug_check_code", 1) is None:
        assert found.bug_check is None and found.bucket.startswith("UNKNOWN_")


async def test_a_source_that_has_nothing_at_all() -> None:
    found = await Analyst(MadeUp({}), target_of(bug_check=0xD1, parameters=(8, 2, 0, 0x1234))).all()
    assert found.crash is None and found.stack is None and found.suspect is None
    assert found.bucket == "D1_unknown"
    assert ("the crash context", "there are no registers of the processor that stopped") in [
        (one.what, one.why) for one in found.missing
    ]


async def test_a_target_that_is_lost_is_not_passed_over() -> None:
    kernel = build_kernel(_SMALL)
    source = SimulatedSource(kernel)
    target = await discover(source)

    async def lost(address: VirtualAddress, size: int) -> bytes:
        raise TargetLostError("it went away")

    source.virtual.read = lost  # type: ignore[method-assign]
    with pytest.raises(TargetLostError):
        await Analyst(source, target).first()


async def test_a_real_crash(shared: Path) -> None:
    with DumpFile(shared / "data/dumps/triage_x64.dmp") as dump:
        source = ReadOnce(dump)
        found = await Analyst(source, await discover(source)).all()
    assert found.bucket == "7E_amdppm+334c"
    assert found.suspect is not None
    assert (found.suspect.module, found.suspect.rule) == ("amdppm", "faulting instruction")
    # Its version resource is not in the file, so nobody says whose driver it is.
    assert found.suspect.certainty is Certainty.LIKELY
    assert found.bug_check is not None
    assert [one.region for one in found.bug_check.parameters] == [
        "", "", "the stack of processor 0's thread", "the stack of processor 0's thread",
    ]  # fmt: skip
    assert len(found.stacks) == 16
    assert any("stack" in one.what and one.ranges for one in found.missing)


async def test_a_real_machine_that_was_stopped_by_its_power_button(shared: Path) -> None:
    with DumpFile(shared / "data/dumps/triage_arm64.dmp") as dump:
        source = ReadOnce(dump)
        found = await Analyst(source, await discover(source)).all()
    assert found.suspect is None and found.bucket.startswith("1C8_")
    assert found.crash is not None and len(found.crash.instructions) == 6


async def test_over_a_line_of_115200_baud(autojump_clock: trio.testing.MockClock) -> None:
    async with take_over(scenario("bugcheck", baud=115_200)) as taken:
        start = trio.current_time()
        source = ReadOnce(taken.target)
        analyst = Analyst(source, await discover(source))
        first = await analyst.first()
        assert trio.current_time() - start < 15
        assert first.suspect is not None and first.suspect.module == "mydrv"
        await analyst.all()
        assert trio.current_time() - start < 120


@pytest.mark.parametrize("kind", [1, 5, 6])
async def test_a_dump_tells_the_same(kind: int, tmp_path: Path) -> None:
    kernel = build_kernel(replace(_SMALL, memory_size=16 << 20))
    path = written(tmp_path / "made.dmp", *dump_plan(kernel, kind))
    live = await (await _analyst(kernel)).first()
    with DumpFile(path) as dump:
        source = ReadOnce(dump)
        found = await Analyst(source, await discover(source)).first()
    assert (found.bucket, found.stopped, found.suspect) == (live.bucket, live.stopped, live.suspect)
    assert (found.crash, found.stack, found.bug_check) == (live.crash, live.stack, live.bug_check)


async def test_a_small_dump_names_the_same_driver(tmp_path: Path) -> None:
    kernel = small_machine()
    path = tmp_path / "small.dmp"
    path.write_bytes(small_dumped(kernel).data)
    live = await (await _analyst(kernel)).first()
    with DumpFile(path) as dump:
        source = ReadOnce(dump)
        found = await Analyst(source, await discover(source)).all()
    assert (found.bucket, found.stopped) == (live.bucket, live.stopped)
    assert found.suspect is not None and live.suspect is not None
    assert (found.suspect.module, found.suspect.place.address) == (live.suspect.module, live.suspect.place.address)
