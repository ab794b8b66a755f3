"""Microsoft's engine opens the dumps that we bring home, complains of nothing, and sees what the machine held."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

import kdbridge
from kdbridge import DumpKind, DumpLayoutChoice, complete_plan, kernel_plan
from kdbridge.plan import Plan
from kdbridge.transports.sim import SimTransport, open_sim
from protocol.dumpfile.header import DumpType
from simulator.kernel import SimulatedKernel
from tests.end_to_end import truth
from tests.end_to_end.printed import parse_memory, unknown_lines
from tests.end_to_end.seen import assert_seen, questions
from tests.referee import Kdexec, Transcript, parse

pytestmark = pytest.mark.referee

_BANNERS = {
    DumpType.FULL: "Kernel Complete Dump File: Full address space is available",
    DumpType.BITMAP_FULL: "Kernel Bitmap Dump File: Full address space is available",
    DumpType.BITMAP_KERNEL: "Kernel Bitmap Dump File: Kernel address space is available, "
    "User address space may not be available.",
}
_COMPLETE = frozenset({DumpType.FULL, DumpType.BITMAP_FULL})
_RUNS, _BITMAP = (DumpKind.COMPLETE, DumpLayoutChoice.RUNS), (DumpKind.COMPLETE, DumpLayoutChoice.BITMAP)
_COMPLETE_BY_ITSELF, _KERNEL = (DumpKind.COMPLETE, DumpLayoutChoice.AUTO), (DumpKind.KERNEL, DumpLayoutChoice.AUTO)


@dataclass(frozen=True, slots=True)
class _Dump:
    """A dump that was brought home over the line, and the truth about its machine."""

    path: Path
    kernel: SimulatedKernel
    dump_type: DumpType
    comment: str = "kdbridge"


def _bring_home(
    folder: Path, scenario: str, plan: Plan, *wanted: tuple[DumpKind, DumpLayoutChoice], **options: str
) -> list[_Dump]:
    """Take the machine over, capture it once, and render these dumps of it."""

    async def all_of_it(way: SimTransport) -> list[_Dump]:
        async with kdbridge.open(way.url, transport=way) as target:
            snapshot = await target.snapshot(folder / f"{scenario}-{plan.__name__}", plan)
        with snapshot:
            dumps = []
            for kind, layout in wanted:
                path = folder / f"{kind}-{layout}.dmp"
                made = await kdbridge.render(snapshot, snapshot.target, path, kind=kind, layout=layout)
                assert made.missing == 0 and made.shortcomings == ()
                dumps.append(_Dump(path, way.running.kernel, made.dump_type))
        return dumps

    way = open_sim(f"sim:{scenario}", scenario, options)
    # The machine's seconds pass at once; its line is in this process.
    return trio.run(all_of_it, way, clock=trio.testing.MockClock(autojump_threshold=0))


def _ask(kdexec: Kdexec, dump: _Dump, *commands: str) -> Transcript:
    """Open the dump. Every line that the engine prints while it does is one that is known to be none of our doing."""
    transcript = parse(kdexec("-z", dump.path, *commands))
    kernel = dump.kernel
    opened = transcript.opening.partition("Loading Dump File")[2]
    assert _BANNERS[dump.dump_type] in opened.splitlines()
    expected = [_BANNERS[dump.dump_type], f"Comment: '{dump.comment}'", *transcript["vertarget"].lines]
    if kernel.bug_check[0]:
        expected += ["A fatal system error has occurred.", *transcript[".bugcheck"].lines]
    if kernel.break_status == 3:  # DBG_STATUS_BUGCHECK_FIRST
        expected.append("Debugger entered on first try; Bugcheck callbacks have not been invoked.")
    assert unknown_lines(opened.partition("\n")[2], expected) == []
    return transcript


def _assert_seen(kdexec: Kdexec, dump: _Dump, seed: int, *, rootless: frozenset[int] = frozenset()) -> None:
    """The engine sees the whole machine as the simulator knows it.

    Of `rootless` processors it lacks the top page table.
    """
    kernel = dump.kernel
    memory = truth.memory_with_contexts(kernel)
    words = truth.some_words(kernel, memory, random.Random(seed), physical=100 if dump.dump_type in _COMPLETE else 0)
    script = dump.path.with_suffix(".txt")
    script.write_text(words.script)
    everything = f"$<Z:{str(script).replace('/', chr(92))}"
    transcript = _ask(kdexec, dump, *questions(kernel), everything)
    assert_seen(transcript, kernel, rootless)
    answered = parse_memory(transcript[everything].text)
    assert len(answered.words) == 1000
    assert answered.words == words.expected.words, f"seed {seed}"
    # What is mapped and is no RAM, or could not be read, a bitmap leaves out, and the engine names it.
    assert answered.absent == (set() if dump.dump_type is DumpType.FULL else words.expected.absent)


@pytest.fixture(scope="module", params=[1, 4, 64], ids=lambda count: f"{count} processors")
def dumps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[DumpType, _Dump]:
    """A machine at a blue screen, brought home complete and again as a kernel dump."""
    folder = tmp_path_factory.mktemp("dumps")
    bring = partial(_bring_home, folder, "bugcheck", processors=str(request.param), memory="32M")
    found = [
        *bring(complete_plan, _RUNS, _BITMAP),
        *bring(kernel_plan, _KERNEL),
    ]
    return {dump.dump_type: dump for dump in found}


@pytest.mark.parametrize("dump_type", _BANNERS, ids=lambda kind: f"type {kind:d}")
def test_the_engine_sees_the_machine_in_our_dump(
    dumps: dict[DumpType, _Dump], dump_type: DumpType, kdexec: Kdexec
) -> None:
    _assert_seen(kdexec, dumps[dump_type], seed=1)


def test_an_old_kernel_whose_registers_lie_in_its_processor_state(kdexec: Kdexec, tmp_path: Path) -> None:
    (dump,) = _bring_home(tmp_path, "nt52", kernel_plan, _KERNEL, memory="32M")
    assert len(dump.kernel.kdbg.raw) < 0x33A, "too short for OffsetPrcbContext"
    _assert_seen(kdexec, dump, seed=2)


def test_a_machine_of_many_runs_gets_a_bitmap(kdexec: Kdexec, tmp_path: Path) -> None:
    (dump,) = _bring_home(tmp_path, "many-runs", complete_plan, _COMPLETE_BY_ITSELF, memory="64M")
    assert len(dump.kernel.image.runs) == 60
    assert dump.dump_type is DumpType.BITMAP_FULL
    _assert_seen(kdexec, dump, seed=3)


@pytest.mark.parametrize(("plan", "wanted"), [(complete_plan, _COMPLETE_BY_ITSELF), (kernel_plan, _KERNEL)])
def test_a_kdbg_that_memory_holds_encoded_is_in_the_dump_in_plain(
    plan: Plan, wanted: tuple[DumpKind, DumpLayoutChoice], kdexec: Kdexec, tmp_path: Path
) -> None:
    (dump,) = _bring_home(tmp_path, "encoded-kdbg", plan, wanted, memory="32M")
    kernel = dump.kernel
    assert kernel.read_virtual(kernel.kdbg_address, 0x100) != kernel.kdbg.raw[:0x100]
    _assert_seen(kdexec, replace(dump, comment="kdbridge: KDBG decoded by kdbridge"), seed=4)


def test_a_machine_that_refuses_physical_reads(kdexec: Kdexec, tmp_path: Path) -> None:
    """What is mapped where it stopped can be brought home: the kernel, and the page tables of this process only."""
    (dump,) = _bring_home(tmp_path, "no-physical-reads", kernel_plan, _KERNEL, memory="32M")
    processors = dump.kernel.processors
    root = processors[dump.kernel.stopped_processor].special_values["cr3"]
    rootless = frozenset(part.number for part in processors if part.special_values["cr3"] != root)
    assert len(rootless) == 2
    _assert_seen(kdexec, dump, seed=5, rootless=rootless)


@pytest.mark.parametrize(("plan", "wanted"), [(complete_plan, _BITMAP), (kernel_plan, _KERNEL)])
def test_a_machine_of_strange_answers_with_pages_that_cannot_be_read(
    plan: Plan, wanted: tuple[DumpKind, DumpLayoutChoice], kdexec: Kdexec, tmp_path: Path
) -> None:
    (dump,) = _bring_home(tmp_path, "strange-answers", plan, wanted, memory="32M")
    assert len(dump.kernel.image.unreadable) == 3
    _assert_seen(kdexec, dump, seed=6)
