"""One verdict from many signs: which sign outweighs which, and where nothing is named."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from kdbridge.doctor.damage import Damage, Pattern
from kdbridge.doctor.signs import Condition, Probed, Signs
from kdbridge.doctor.table import TABLE
from kdbridge.doctor.texts import Console
from kdbridge.doctor.verdicts import Circumstances, Verdict, judge
from kdbridge.doctor.waveform import Misheard
from protocol.layouts.version import SystemType
from protocol.state_change import StateChange
from tests.raw import change_bytes
from tests.small_machine import version_of_19041

_SILENT = Signs(115200, 5.0, 0, 0, b"")
_STOPPED = Signs(
    115200, 5.0, 2000, 400, b"0000", Counter({"STATE_CHANGE64": 3, "STATE_MANIPULATE": 12}), Damage(15),
    understood=True, condition=Condition.STOPPED, stop=StateChange.decode(change_bytes()), version=version_of_19041(),
    probed=Probed(1, 12, 12, (0.002,) * 12),
)  # fmt: skip
_NOISE = Signs(115200, 5.0, 500, 0, bytes(range(32, 200)))


def test_a_healthy_line_is_called_so() -> None:
    verdict = judge(_STOPPED)
    assert (verdict.name, verdict.exit_code) == ("stopped", 0)
    assert verdict.confidence > 0.9
    assert any("12 of 12" in text for text in verdict.evidence)


@pytest.mark.parametrize(
    ("condition", "name"),
    [
        (Condition.LOADING, "booting"),
        (Condition.ASKING, "asking"),
        (Condition.PRINTING, "running"),
        (Condition.DUMPING, "dumping"),
    ],
)
def test_what_the_target_does(condition: Condition, name: str) -> None:
    signs = replace(_STOPPED, condition=condition, stop=None, version=None, probed=Probed(), loads=("a.sys",))
    assert judge(signs).name == name
    assert judge(signs).exit_code == 0


@pytest.mark.parametrize(
    ("system", "name"),
    [
        (SystemType.NT_BOOT_DEBUGGER, "boot-debugger"),
        (SystemType.EFI, "boot-debugger"),
        (SystemType.HYPERVISOR, "hypervisor"),
        (SystemType.NT, "stopped"),
    ],
)
def test_what_kind_of_debugger_answers(system: SystemType, name: str) -> None:
    version = replace(version_of_19041(), major_version=system << 8 | 0xF)
    assert judge(replace(_STOPPED, version=version)).name == name


def test_a_system_type_that_nobody_knows_is_no_finding() -> None:
    assert judge(replace(_STOPPED, version=replace(version_of_19041(), major_version=0x770F))).name == "stopped"


def test_nobody() -> None:
    assert judge(_SILENT).name == "silence"
    assert judge(_SILENT, Circumstances(connected=False)).name == "nobody-connected"
    network = judge(_SILENT, Circumstances(network="datagrams came from 10.0.0.9 that do not authenticate"))
    assert network.name == "network"
    assert network.evidence == ("datagrams came from 10.0.0.9 that do not authenticate",)
    assert {judge(_SILENT).exit_code, network.exit_code} == {3}


def test_a_target_that_agreed_on_a_session_and_says_nothing_runs() -> None:
    assert judge(replace(_SILENT, received=374), Circumstances(session=True)).name == "running"


def test_echo_outweighs_the_damage_that_it_does() -> None:
    signs = replace(_STOPPED, echoed=True, damage=Damage(9, 9, 0, Pattern.LOST, 0.9, ("x",)))
    assert judge(signs).name == "echo"


def test_another_debugger_outweighs_what_it_is_told() -> None:
    assert judge(replace(_STOPPED, strangers=("4 acknowledges",))).name == "another-debugger"


@pytest.mark.parametrize("pattern", Pattern)
def test_each_damage_has_a_verdict(pattern: Pattern) -> None:
    signs = replace(_STOPPED, damage=Damage(9, 9, 0, pattern, 0.8, ("9 of 18 packets are damaged",)))
    verdict = judge(signs)
    assert verdict.exit_code == 1
    assert verdict.name != "undecided"
    assert "9 of 18 packets are damaged" in verdict.evidence


def test_damage_that_nobody_can_name_is_undecided_and_says_what_may_be() -> None:
    damage = Damage(9, 1, 0, None, 0.0, ("1 of 10",), None, (Pattern.FLIPPED, Pattern.LOST))
    verdict = judge(replace(_STOPPED, damage=damage))
    assert (verdict.name, verdict.confidence) == ("undecided", 0.0)
    assert verdict.possible == ("bit-errors", "lost-bytes")
    assert TABLE["bit-errors"].title in verdict.cause


def test_the_error_rate_is_told() -> None:
    verdict = judge(replace(_STOPPED, damage=Damage(9, 9, 0, Pattern.FLIPPED, 0.8, (), 1e-4)))
    assert "about 1 bit in 10,000 is wrong" in verdict.evidence


def test_text_and_parity() -> None:
    assert judge(replace(_NOISE, text=Console("login: ", "a Linux console"))).name == "text"
    assert judge(replace(_NOISE, text=Console("login: ", "a Linux console", "even"))).name == "parity"
    assert judge(replace(_STOPPED, foreign=Console("login: ", ""))).name == "second-writer"


def test_another_speed_is_named_only_where_it_is_known() -> None:
    found = judge(replace(_NOISE, misheard=(Misheard(0.5, False, "", 4, 14, 40),)))
    assert found.name == "wrong-baud" and "?baud=57600" in found.cure
    rivals = (Misheard(0.5, False, "", 4, 14, 40), Misheard(1 / 3, False, "", 4, 12, 30))
    several = judge(replace(_NOISE, misheard=rivals))
    assert "57600, 38400" in several.cure and several.confidence < found.confidence
    nowhere = judge(replace(_NOISE, baud=None, misheard=rivals[:1]))
    assert "0.5 times" in " ".join(nowhere.evidence) and "57600" not in nowhere.cure
    heard = judge(_NOISE, Circumstances(confirmed_baud=9600))
    assert "?baud=9600" in heard.cure and heard.confidence > 0.9


def test_only_zeros_come_from_a_slow_end() -> None:
    verdict = judge(replace(_NOISE, zeros=True, first=bytes(16)))
    assert verdict.name == "wrong-baud"
    assert "9600, 4800" in verdict.cure and "19200" not in verdict.cure
    assert judge(replace(_NOISE, zeros=True, baud=None)).name == "undecided"
    assert judge(replace(_NOISE, zeros=True, baud=1200)).name == "undecided"


def test_bytes_that_fit_nothing_are_undecided() -> None:
    assert judge(_NOISE).name == "undecided"
    assert "wrong-baud" in judge(_NOISE).possible
    assert "silence" in judge(replace(_NOISE, received=2)).possible


def test_who_hears_whom() -> None:
    deaf = replace(_STOPPED, understood=False, repeats=5, version=None, probed=Probed(3))
    assert judge(deaf).name == "not-heard"
    assert judge(replace(_STOPPED, resends=9, resends_again=4)).name == "garbled-there"
    assert judge(replace(_STOPPED, resends=1)).name == "undecided"
    assert judge(replace(_STOPPED, doubles=3)).name == "doubled-packets"
    assert judge(replace(_STOPPED, stalls=3, resends=2, resends_again=1)).name == "stalls"
    lossy = Probed(1, 12, 12, (0.002,) * 8, retried=4, silently=4)
    assert judge(replace(_STOPPED, probed=lossy)).name == "lost-packets"
    once = Probed(1, 12, 12, (0.002,) * 11, retried=1, silently=1)
    assert judge(replace(_STOPPED, probed=once)).name == "undecided"


@pytest.mark.parametrize(
    ("rough", "name"),
    [(("0A",), "newlines"), (("0D",), "newlines"), (("11 and 13",), "flow-control"), (("FF",), "telnet")],
)
def test_what_questions_cannot_carry_names_what_stands_in_their_way(rough: tuple[str, ...], name: str) -> None:
    signs = replace(_STOPPED, resends=40, resends_again=30, probed=Probed(1, 12, 10, (), 0, 0, rough))
    assert judge(signs).name == name


def test_late_answers_are_an_adapters_and_its_timer_makes_it_sure() -> None:
    signs = replace(_STOPPED, probed=Probed(1, 12, 12, (0.0165,) * 12))
    assert judge(signs).name == "slow"
    assert judge(signs, Circumstances(latency_timer=16)).confidence > judge(signs).confidence
    assert any("timer is 16 ms" in text for text in judge(signs, Circumstances(latency_timer=16)).evidence)
    assert judge(signs, Circumstances(latency_timer=1)).confidence == judge(signs).confidence
    assert judge(replace(signs, probed=Probed(1, 12, 12, (0.003,) * 12))).name == "stopped"
    # One late answer of twelve is nobody's timer.
    assert judge(replace(signs, probed=Probed(1, 12, 12, (0.003,) * 11 + (0.4,)))).name == "stopped"


def test_a_line_that_fell_silent_is_undecided() -> None:
    assert judge(replace(_STOPPED, understood=None, died=True, probed=Probed(3))).name == "undecided"


def test_every_verdict_can_be_made_and_says_its_entry() -> None:
    for name, entry in TABLE.items():
        verdict = Verdict(name, (), 0.5)
        assert (verdict.title, verdict.cause, verdict.cure, verdict.exit_code) == (
            entry.title, entry.cause, entry.cure, entry.exit_code,
        )  # fmt: skip
