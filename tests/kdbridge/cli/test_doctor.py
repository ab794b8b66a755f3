"""kdbridge doctor: what is printed, as text and as JSON, and how it ends."""

from __future__ import annotations

import pytest

from tests.kdbridge.cli.calling import call

_QUICK = ("--seconds", "1.5", "--listen-only")


def test_a_healthy_line_ends_with_0() -> None:
    ended = call("doctor", "sim:bugcheck?memory=16M", "--seconds", "1.5")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert "verdict: stopped: a stopped target, and both ends hear each other" in lines
    assert "  cause: Nothing is wrong with this link." in lines
    assert any(line.startswith("received: ") and "STATE_CHANGE64" in line for line in lines)
    assert any(line.startswith("sent: ") and "RESET" in line for line in lines)
    assert ended.err.startswith("listening on sim:bugcheck?memory=16M for 1.5 seconds, without sending\n")


def test_a_finding_ends_with_1_and_has_evidence_cause_cure_and_confidence() -> None:
    ended = call("doctor", "sim:bugcheck?memory=16M&fault=sevenbit", *_QUICK)
    assert ended.code == 1
    verdict = ended.out[ended.out.index("verdict: ") :].splitlines()
    assert verdict[0].startswith("verdict: seven-bit: ")
    assert [line.split(":")[0].strip() for line in verdict[1:]] == ["evidence", "cause", "cure", "confidence"]


def test_nobody_ends_with_3_and_nothing_was_sent() -> None:
    ended = call("doctor", "sim:running", *_QUICK)
    assert ended.code == 3
    assert "verdict: silence: not one byte came\n" in ended.out
    assert "sent:" not in ended.out


def test_json_tells_the_same() -> None:
    document = call("doctor", "sim:bugcheck?memory=16M&fault=sevenbit", "--json", *_QUICK).document
    assert document["target"] == "sim:bugcheck?memory=16M&fault=sevenbit"
    assert document["received"] > 250 and document["sent"] == 0
    assert document["damage"]["pattern"] == "seven_bits"
    assert set(document["verdict"]) == {"name", "title", "evidence", "cause", "cure", "confidence", "possible"}
    assert document["verdict"]["name"] == "seven-bit" and 0.5 < document["verdict"]["confidence"] <= 1


def test_what_a_console_says_cannot_command_the_terminal() -> None:
    ended = call("doctor", "sim:running?fault=text=%1b[2Jlogin:%20", *_QUICK)
    assert ended.code == 1 and "verdict: text: " in ended.out and "login:" in ended.out
    assert "\x1b" not in ended.out + ended.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sim:bugcheck", "--seconds", "0"), "--seconds 0: nothing can come in that time"),
        (("sim:bugcheck", "--seconds", "nan"), "--seconds nan: nothing can come in that time"),
        (("net:port=50000,key=1.2.3.4", "--listen-only"), "--listen-only: a target on a network says nothing more"),
        (("nowhere:",), "there is no 'nowhere' target"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], words: str) -> None:
    ended = call("doctor", *arguments)
    assert ended.code == 2
    assert words in ended.err
