"""Microsoft's engine attaches to our simulator, complains of nothing, and all it does has the effect of a real machine.

Attached to a live machine the engine lists nt alone, and unwinds no further than into another module, until `.reload`
tells it to read the list of modules: so that comes first.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from kdbridge import DumpFile
from protocol.address import PageRuns
from protocol.arch import AMD64
from protocol.dumpfile.header import DumpType
from simulator.kernel import SimulatedKernel, build_kernel
from tests.end_to_end import truth
from tests.end_to_end.printed import parse_bug_check, parse_memory, parse_registers, parse_stack, unknown_lines
from tests.end_to_end.seen import assert_seen, assert_standing, questions
from tests.end_to_end.served import Served, served
from tests.referee import Kdexec, Transcript, parse

pytestmark = pytest.mark.referee

_CONNECTED = (
    "Opened 127.0.0.1",
    "Opened \\\\.\\COM1",
    "Waiting to reconnect...",
    "Kernel Debugger connection established.  (Initial Breakpoint requested)",
)
_ATTACHED = r"Connected to Windows (10|Server 2003) \d+ x64 target at \(.*\), ptr64 TRUE"
_BROKE = "Break instruction exception - code 80000003 (first chance)"
_FATAL = "A fatal system error has occurred."
_FIRST_TRY = "Debugger entered on first try; Bugcheck callbacks have not been invoked."
_REFRESHING = "KDTARGET: Refreshing KD connection"
_BREAK_IN = r"\* .* \*"
"""Each line of the box that says that this is not a bug or a system crash."""


def _unknown(text: str, *expected: str) -> list[str]:
    """Lines that are neither expected nor the engine's usual talk."""
    return [line for line in unknown_lines(text, expected) if not re.fullmatch(f"{_ATTACHED}|{_BREAK_IN}", line)]


def _ask(kdexec: Kdexec, machine: Served, *commands: str, timeout: float = 120, **environment: str) -> Transcript:
    """Attach and put these questions."""
    text = kdexec(*machine.connection, *commands, env={**machine.environment, **environment}, timeout=timeout)
    return parse(text)


def _bug_check(kernel: SimulatedKernel) -> list[str]:
    """What is printed whenever the engine looks at a bug check."""
    code, *parameters = kernel.bug_check
    words = " ".join(f"{value >> 32:08x}`{value & 0xFFFFFFFF:08x}" for value in parameters)
    return [_FATAL, f"Bugcheck code {code:08X}", f"Arguments {words}"]


def _session(transcript: Transcript) -> list[str]:
    return transcript["vertarget"].lines


@pytest.mark.parametrize("on", ["tcp:127.0.0.1:0", "pty:"])
def test_a_machine_at_a_blue_screen(on: str, kdexec: Kdexec, tmp_path: Path) -> None:
    seed = 7
    with served("bugcheck", on=on, processors=4) as machine:
        kernel = machine.kernel
        words = truth.some_words(kernel, kernel.image, random.Random(seed), count=400, physical=100)
        script = tmp_path / "addresses.txt"
        script.write_text(words.script)
        everything = f"$<Z:{str(script).replace('/', chr(92))}"
        transcript = _ask(kdexec, machine, ".reload", *questions(kernel), everything)
    assert _unknown(transcript.opening, *_CONNECTED, *_session(transcript), _BROKE, *_bug_check(kernel)) == []
    assert_seen(transcript, kernel)
    answered = parse_memory(transcript[everything].text)
    assert answered.words == words.expected.words, f"seed {seed}"
    assert answered.absent == set()


@pytest.mark.parametrize("on", ["tcp:127.0.0.1:0", "pty:"])
def test_registers_memory_and_physical_memory_by_the_double_word(on: str, kdexec: Kdexec) -> None:
    """The commands of a first look, one by one, as a person types them."""
    with served("bugcheck", on=on) as machine:
        kernel = machine.kernel
        virtual, physical = kernel.kdbg_address, kernel.tables.translate(kernel.kdbg_address)
        assert physical is not None
        look = (".reload", "~1s", "r", "k", f"dd {virtual:x} L10", f"dd /p {physical:x} L10", f"dd /p {1 << 30:x} L1")
        transcript = _ask(kdexec, machine, *look)
    assert_standing(f"{transcript['r'].text}\n{transcript['k'].text}", kernel, 1)
    content = kernel.image.read(physical, 64)
    assert content is not None
    for start, command in ((virtual, look[4]), (physical, look[5])):
        found = [line.split("  ") for line in transcript[command].lines]
        assert [int(place.replace("`", ""), 16) for place, _ in found] == list(range(start, start + 64, 16))
        data = b"".join(int(word, 16).to_bytes(4, "little") for _, words in found for word in words.split())
        assert data == content
    assert transcript[look[6]].lines == ["00000000`40000000  ????????"], "no RAM there"


def test_a_blue_screen_comes_back_after_every_go(kdexec: Kdexec) -> None:
    with served("bugcheck") as machine:
        transcript = _ask(kdexec, machine, ".reload", *("g", "r; k", ".bugcheck") * 3, "vertarget")
    kernel = machine.kernel
    _, *said, _ = (answer.text for answer in transcript.answers)
    assert len(said) == 9
    for gone, standing, bug_check in zip(said[::3], said[1::3], said[2::3], strict=True):
        assert _unknown(gone, _BROKE, *_bug_check(kernel)) == []
        assert _BROKE in gone.splitlines() and _FATAL in gone.splitlines()
        assert_standing(standing, kernel, 0)
        assert parse_bug_check(bug_check) == kernel.bug_check


def test_a_blue_screen_while_the_debugger_is_attached(kdexec: Kdexec) -> None:
    """It breaks in behind the first print; then come the fatal text, the first break, and the last ones for ever."""
    look = "r; k"
    with served("bugcheck-attached") as machine:
        transcript = _ask(kdexec, machine, ".reload", look, "g", look, "g", look, "g", look, "vertarget")
    kernel = machine.kernel
    code, *parameters = kernel.bug_check
    fatal = [
        f"*** Fatal System Error: 0x{code:08x}",
        f"                       ({','.join(f'0x{value:016X}' for value in parameters)})",
    ]
    assert _unknown(transcript.opening, *_CONNECTED, *_session(transcript), _BROKE, _REFRESHING) == []
    assert _REFRESHING in transcript.opening
    _, at_print, to_first, at_first, to_last, at_last, to_again, at_again, _ = (a.text for a in transcript.answers)
    lines = [line for line in to_first.splitlines() if line]
    assert lines[lines.index(fatal[0]) :][:4] == [*fatal, _BROKE, _FATAL]
    assert _FIRST_TRY in lines
    assert _unknown(to_first, *fatal, _BROKE, _FIRST_TRY, *_bug_check(kernel)) == []
    assert _unknown(to_last, _BROKE, *_bug_check(kernel)) == []
    assert _unknown(to_again, _BROKE, *_bug_check(kernel)) == []
    assert _FIRST_TRY not in to_last + to_again
    # First argument of DbgBreakPointWithStatus: broken in, first break, last one.
    for text, status in ((at_print, 1), (at_first, 3), (at_last, 4), (at_again, 4)):
        assert_standing(text, kernel, 0, rcx=status)


def test_an_old_kernel(kdexec: Kdexec) -> None:
    """NT 5.2 at the first break of its bug check: a short KDBG, and most newer requests refused."""
    with served("nt52") as machine:
        kernel = machine.kernel
        transcript = _ask(kdexec, machine, ".reload", *questions(kernel))
    expected = [*_CONNECTED, *_session(transcript), _BROKE, _FIRST_TRY, *_bug_check(kernel)]
    assert _unknown(transcript.opening, *expected) == []
    assert_seen(transcript, kernel)


def test_a_running_machine_that_is_broken_into(kdexec: Kdexec) -> None:
    with served("running", processors=4) as machine:
        kernel = machine.kernel
        transcript = _ask(kdexec, machine, ".reload", *questions(kernel), KDEXEC_BREAK="1")
    assert _unknown(transcript.opening, *_CONNECTED, *_session(transcript), _BROKE) == []
    assert "THIS IS NOT A BUG OR A SYSTEM CRASH" in transcript.opening
    assert_seen(transcript, kernel)


def test_breakpoints_steps_and_what_they_leave_behind(kdexec: Kdexec) -> None:
    """A driver stands on its int3. It returns, its worker thread waits for work: the machine runs as its code says."""
    look = "r; k"
    with served("breakpoint") as machine:
        kernel = machine.kernel
        swap, context = kernel.symbols["KiSwapThread"], kernel.symbols["SwapContext"]
        transcript = _ask(
            kdexec, machine, ".reload", look, "g", look, "t", look, "gu", look,
            f"bp {swap:x}", "bl", f"db {swap:x} L10", "g", look, "bc *", "bl", f"ba e1 {context:x}", "g", look, "bc *",
            f"db {swap:x} L10", f"db {context:x} L10", "vertarget",
        )  # fmt: skip
    assert _unknown(transcript.opening, *_CONNECTED, *_session(transcript), _BROKE, "mydrv: queue is up") == []
    said = iter([answer.text for answer in transcript.answers][1:])
    frames = truth.stack(kernel, kernel.processors[0])
    values = truth.registers(kernel.processors[0].context_values)
    stack, _, site = frames[0]

    # It broke in behind the driver's print.
    place = kernel.symbols["DbgBreakPointWithStatus"]
    registers, where = _standing(kernel, next(said))
    assert registers == {**values, "rip": place, "at": place, "rsp": stack - 8, "rcx": 1}
    assert where == [(stack - 8, site, place), *frames]

    assert _unknown(next(said), _BROKE) == []
    registers, where = _standing(kernel, next(said))
    assert registers == {**values, "rcx": 1}
    assert where == frames

    assert _unknown(next(said)) == []  # t
    registers, where = _standing(kernel, next(said))
    assert registers == {**values, "rcx": 1, "rip": site + 1, "at": site + 1}
    assert where == [(stack, frames[0][1], site + 1), *frames[1:]]

    assert _unknown(next(said)) == []  # gu
    registers, where = _standing(kernel, next(said))
    assert where == frames[1:]
    assert registers["rip"] == frames[0][1]
    # CheckQueue had pushed rbx and rdi, and gave them back.
    saved = kernel.read_virtual(stack + 0x28, 16)
    assert saved == registers["rdi"].to_bytes(8, "little") + registers["rbx"].to_bytes(8, "little")

    assert _unknown(next(said)) == []  # bp
    assert re.fullmatch(rf" 0 e {_printed(swap)} +0001 \(0001\) nt!\S+", next(said).strip("\n"))
    code = kernel.read_virtual(swap, 16)
    assert _bytes(next(said)) == code, "the engine shows the code below its breakpoint"
    assert _unknown(next(said), "Breakpoint 0 hit") == []
    registers, where = _standing(kernel, next(said))
    assert registers["rip"] == swap
    _assert_called(kernel, where, "KeRemovePriQueue", "ExpWorkerThread")
    assert where[-3:][0][:2] == frames[-3][:2] and where[-2:] == frames[-2:]

    assert _unknown(next(said)) == [] and next(said) == ""  # bc *, bl
    assert _unknown(next(said)) == []  # ba
    assert _unknown(next(said), "Breakpoint 0 hit") == []
    registers, where = _standing(kernel, next(said))
    assert registers["rip"] == context
    _assert_called(kernel, where, "KiSwapContext", "KiSwapThread", "KeRemovePriQueue", "ExpWorkerThread")
    assert where[-2:] == frames[-2:]
    assert _unknown(next(said)) == []  # bc *
    assert _bytes(next(said)) == code
    assert _bytes(next(said)) == kernel.read_virtual(context, 16)


def test_a_file_that_the_engine_writes_holds_the_memory(kdexec: Kdexec, tmp_path: Path) -> None:
    """16 MiB over the line: each of its pages, and a header that says what the machine says."""
    out = tmp_path / "full.dmp"
    windows = f"Z:{str(out).replace('/', chr(92))}"
    with served("bugcheck", memory=16) as machine:
        kernel = machine.kernel
        transcript = _ask(kdexec, machine, f".dump /f {windows}", "r", timeout=540)
    assert f"Creating {windows} - Full kernel dump" in transcript.answers[0].lines
    assert "Dump successfully written" in transcript.answers[0].lines
    assert "deadfeed" not in transcript.answers[0].text
    with DumpFile(out) as dump:
        header = dump.layout.header
        assert header.dump_type is DumpType.FULL
        assert PageRuns(header.physical_memory) == dump.held == kernel.image.runs
        assert dump.unreadable == PageRuns()
        assert all(dump.page(pfn) == kernel.image.read_page(pfn) for pfn in kernel.image.runs.pages())
    assert (header.bug_check_code, *header.bug_check_parameters) == kernel.bug_check
    assert header.number_processors == 2
    assert header.directory_table_base == kernel.processors[0].special_values["cr3"]
    assert header.kd_debugger_data_block == kernel.kdbg_address
    assert header.system_time == kernel.system_time
    found = AMD64.context.decode(header.context_record[: AMD64.context.size])
    expected = AMD64.context.decode(kernel.processors[0].context())
    assert {name: found[name] for name in _KEPT} == {name: expected[name] for name in _KEPT}


def test_a_machine_that_is_restarted_begins_a_new_life(kdexec: Kdexec) -> None:
    """The engine lets go of a machine that it restarts; it attaches again while the kernel loads its drivers."""
    with served("bugcheck") as machine:
        before = _ask(kdexec, machine, "~1s", "r", ".reboot")
        after = _ask(kdexec, machine, ".reload", *questions(machine.kernel), KDEXEC_BREAK="1")
    assert "Shutdown occurred at" in before[".reboot"].text
    kernel = build_kernel(replace(machine.kernel.options, stop="running", debugger_attached=True))
    assert kernel.bug_check == (0, 0, 0, 0, 0)
    assert _unknown(after.opening, *_CONNECTED, *_session(after), _BROKE) == []
    assert_seen(after, kernel)


_KEPT = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "e_flags", "seg_cs", "seg_ds", "seg_es", "seg_fs", "seg_gs", "seg_ss", "mx_csr",
)  # fmt: skip


def _printed(address: int) -> str:
    return f"{address >> 32:08x}`{address & 0xFFFFFFFF:08x}"


def _standing(kernel: SimulatedKernel, text: str) -> tuple[dict[str, int], list[tuple[int, int, int]]]:
    above, header, below = text.partition("Child-SP")
    return parse_registers(above), truth.where(kernel, parse_stack(header + below))


def _bytes(text: str) -> bytes:
    """What `db` printed."""
    return b"".join(bytes.fromhex(line[19:66].replace("-", " ")) for line in text.splitlines() if line)


def _assert_called(kernel: SimulatedKernel, where: list[tuple[int, int, int]], *callers: str) -> None:
    """The innermost frame is at a function's first instruction, and each of these called the one before it."""
    callee = where[0][2]
    for (_, return_address, _), (_, _, site), caller in zip(where, where[1:], callers, strict=False):
        assert return_address == site
        before = kernel.read_virtual(site - 5, 5)
        assert before is not None and before[0] == 0xE8, "call"
        assert site + int.from_bytes(before[1:], "little", signed=True) == callee
        callee = kernel.symbols[caller]
        assert callee < site < callee + 0x100
