"""Signs in what went over a line: who talks, whether we are heard, what the target does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdbridge.doctor.signs import Condition, Signs, find_signs
from kdbridge.overheard import Overheard
from protocol.debug_io import GetString, PrintString
from protocol.file_io import FileIo
from protocol.layouts.version import SystemType
from protocol.manipulate import ApiNumber, Manipulate
from protocol.packet import encode_control, encode_data
from protocol.state_change import KERNEL_PROCESS_ID, REBOOT_BASE, LoadSymbols, StateChange
from tests.raw import A, ack, change_bytes
from tests.recording import read_chunks
from tests.small_machine import PC, version_of_19041

_CHANGE = encode_data(7, A | 0x800, change_bytes())
_QUESTION = encode_data(2, A, Manipulate(ApiNumber.GET_VERSION).encode())
_ANSWER = encode_data(2, A, Manipulate(ApiNumber.GET_VERSION, union=version_of_19041().encode()).encode())


def _line(*said: tuple[float, bool, bytes], quiet: float = 2.0) -> Overheard:
    heard = Overheard(115200)
    for at, sent, data in said:
        heard.add(at, sent, data)
    heard.seconds += quiet
    return heard


def _of(*payloads: tuple[int, bytes]) -> Signs:
    """Of packets with these types and payloads, a second apart."""
    return find_signs(
        _line(*((float(at), False, encode_data(kind, A | at & 1, data)) for at, (kind, data) in enumerate(payloads)))
    )


def _recorded(shared: Path, directions: Sequence[bool]) -> Overheard:
    return _line(*((chunk.at, False, chunk.data) for chunk in read_chunks(shared) if chunk.from_host in directions))


# ---- what the target does --------------------------------------------------------------------------------------------


def test_a_recorded_target_is_stopped(shared: Path) -> None:
    heard = Overheard(115200)
    for chunk in read_chunks(shared):
        heard.add(chunk.at, chunk.from_host, chunk.data)
    signs = find_signs(heard)
    assert signs.condition is Condition.STOPPED
    assert signs.damage.damaged == 0
    assert signs.understood is True
    assert (signs.strangers, signs.echoed, signs.misheard, signs.text) == ((), False, (), None)


def test_a_state_change_means_stopped() -> None:
    signs = _of((7, change_bytes(PC)))
    assert signs.condition is Condition.STOPPED
    assert signs.stop is not None and signs.stop.program_counter == PC


def test_module_loads_mean_booting() -> None:
    load = LoadSymbols("\\SystemRoot\\ntoskrnl.exe", 0xFFFFF800_00000000, KERNEL_PROCESS_ID, 1, 0x1000, unload=False)
    signs = _of((7, StateChange(6, 0, 1, 0, PC, load).encode()))
    assert signs.condition is Condition.LOADING
    assert signs.loads == ("\\SystemRoot\\ntoskrnl.exe",)


def test_leaving_is_no_stop() -> None:
    leave = LoadSymbols("", REBOOT_BASE, 0, 0, 0, unload=True)
    assert _of((7, StateChange(6, 0, 1, 0, PC, leave).encode())).condition is not Condition.STOPPED


def test_prints_mean_running_and_a_crash_in_them_means_dumping() -> None:
    assert _of((3, PrintString(6, 0, b"mydrv: up\n").encode())).condition is Condition.PRINTING
    fatal = PrintString(6, 0, b"\n*** Fatal System Error: 0x000000d1\n").encode()
    assert _of((3, PrintString(6, 0, b"mydrv: up\n").encode()), (3, fatal)).condition is Condition.DUMPING
    assert _of((3, fatal), (7, change_bytes())).condition is Condition.STOPPED


def test_prompts_and_files_mean_asking() -> None:
    assert _of((3, GetString(6, 0, b"(bipt)? ", 2).encode())).condition is Condition.ASKING
    assert _of((11, FileIo.create("\\a.sys").encode())).condition is Condition.ASKING


def test_the_version_is_taken_from_an_answer_and_not_from_a_question() -> None:
    assert find_signs(_line((0.0, False, _QUESTION))).version is None
    version = find_signs(_line((0.0, True, _QUESTION), (0.1, False, _ANSWER))).version
    assert version is not None
    assert (version.build, version.system_type) == (19041, SystemType.NT)


# ---- who talks, who hears --------------------------------------------------------------------------------------------


def test_another_debugger_is_heard_in_a_recording_of_both_ways(shared: Path) -> None:
    assert find_signs(_recorded(shared, [True, False])).strangers
    # Also where only its target can be heard: there are acknowledges and answers that nobody here asked for.
    assert find_signs(_recorded(shared, [False])).strangers
    assert find_signs(_recorded(shared, [True])).strangers


def test_a_reply_that_is_repeated_is_no_other_debugger() -> None:
    assert find_signs(_line(*((float(at), False, _ANSWER) for at in range(5)))).strangers == ()


def test_our_question_that_comes_back_is_an_echo_and_its_answer_is_not() -> None:
    assert find_signs(_line((0.0, True, _QUESTION), (0.1, False, _QUESTION))).echoed
    assert not find_signs(_line((0.0, True, _QUESTION), (0.1, False, ack(A) + _ANSWER))).echoed


def test_a_reset_is_an_echo_only_by_its_mark() -> None:
    plain, marked = encode_control(6), encode_control(6, 0x524F44)
    assert not find_signs(_line((0.0, True, plain), (0.1, False, plain))).echoed
    assert find_signs(_line((0.0, True, marked), (0.1, False, marked))).echoed
    assert not find_signs(_line((0.0, True, marked), (0.1, False, plain))).echoed


def test_a_target_that_repeats_what_was_acknowledged_does_not_hear() -> None:
    said = [(0.0, False, _CHANGE), (1.0, True, encode_control(6) + ack(A))]
    for at in range(2, 7):
        said += [(float(at), False, _CHANGE), (at + 0.1, True, ack(A))]
    signs = find_signs(_line(*said))
    assert signs.understood is False
    assert signs.repeats == 4
    assert find_signs(_line(*said, (7.0, False, ack(A)))).understood is True
    assert find_signs(_line((0.0, False, _CHANGE), (1.0, False, _CHANGE))).understood is None


def test_packets_that_come_twice_at_once_are_told_from_late_ones() -> None:
    start = (0.0, True, encode_control(6))
    assert find_signs(_line(start, (0.1, False, _CHANGE + _CHANGE))).doubles == 1
    late = find_signs(_line(start, (0.1, False, _CHANGE), (1.2, False, _CHANGE)))
    assert (late.doubles, late.repeats) == (0, 1)


def test_a_resend_behind_a_resend_is_told_from_one_alone() -> None:
    resend = encode_control(5)
    start = (0.0, True, _QUESTION)
    one = find_signs(_line(start, (0.1, False, resend), (0.2, False, ack(A) + _ANSWER), (0.3, False, resend)))
    assert (one.resends, one.resends_again) == (2, 0)
    assert find_signs(_line(start, (0.1, False, resend), (0.2, False, resend))).resends_again == 1


def test_a_pause_in_a_packet_is_a_stall_and_one_between_packets_is_none() -> None:
    assert find_signs(_line((0.0, False, _CHANGE[:99]), (2.0, False, _CHANGE[99:]))).stalls == 1
    assert find_signs(_line((0.0, False, _CHANGE), (2.0, False, _CHANGE))).stalls == 0


# ---- what is no debugger ---------------------------------------------------------------------------------------------


def test_text_alone_and_text_between_packets() -> None:
    alone = find_signs(_line((0.0, False, b"server login: ")))
    assert alone.text is not None and "Linux" in alone.text.whose
    between = find_signs(_line((0.0, False, _CHANGE), (0.5, False, b"server login: "), (1.0, False, _CHANGE)))
    assert between.text is None
    assert between.foreign is not None and between.foreign.text == "server login: "


def test_zeros_are_seen() -> None:
    assert find_signs(_line((0.0, False, bytes(40)))).zeros
    assert not find_signs(_line()).zeros
