"""The driver finds what it is there for: planted bugs of every kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from protocol.errors import RemoteProtocolError
from tests.fuzz.__main__ import main
from tests.fuzz.driver import Limits, Target, fuzz, input_of, replay
from tests.fuzz.targets import TARGETS, counts

_LIMITS = Limits(seconds=0.02, memory=8 << 20, traced_every=4)


@dataclass(frozen=True)
class _Planted:
    bug: Callable[[bytes], object]

    def make(self, rng: random.Random) -> bytes:
        return rng.randbytes(4)

    def run(self, data: bytes) -> None:
        if data[0] % 8 == 0:
            self.bug(data)


def _hang(_data: bytes) -> None:
    while True:
        pass


def _hide_a_hang(_data: bytes) -> None:
    while True:
        try:
            _hang(b"")
        except Exception:
            continue


def _refuse(_data: bytes) -> None:
    raise RemoteProtocolError("no")


@pytest.mark.parametrize(
    ("bug", "told"),
    [
        (lambda data: data[int.from_bytes(data, "little") + 4], "IndexError"),
        (lambda data: data.decode("utf-8").encode("ascii") + b"\xff".decode("utf-8").encode(), "UnicodeDecodeError"),
        (_hang, "HangError"),
        (_hide_a_hang, "HangError"),
        (lambda _data: bytes(16 << 20), "16 MiB for an input of 4 bytes"),
        (lambda _data: bytearray(1 << 40), "MemoryError"),
    ],
    ids=["index", "unicode", "hang", "hidden-hang", "memory", "absurd-memory"],
)
def test_a_bug_is_found_and_found_again(bug: Callable[[bytes], object], told: str) -> None:
    target = Target("planted", 1, lambda _folder: _Planted(bug))
    result = fuzz(target, 40, 5, limits=_LIMITS)
    assert len(result.findings) == 1  # once, however often it was met
    finding = result.findings[0]
    assert told in finding.problem and "seed 5" in str(finding)
    assert input_of(_Planted(bug), "planted", 5, finding.number) == finding.data
    assert told in replay(target, finding.data, _LIMITS)
    assert 0 < result.taken < 40


def test_a_named_error_is_a_finding_only_where_nothing_may_come_out() -> None:
    assert fuzz(Target("planted", 1, lambda _folder: _Planted(_refuse)), 40, 5).findings == []
    strict = fuzz(Target("planted", 1, lambda _folder: _Planted(_refuse), refuses=False), 40, 5)
    assert "RemoteProtocolError: no" in strict.findings[0].problem


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_depends_on_its_number_alone(name: str, tmp_path: Path) -> None:
    fuzzed = TARGETS[name].start(tmp_path)
    forwards = [input_of(fuzzed, name, 3, number) for number in range(300)]
    backwards = [input_of(fuzzed, name, 3, number) for number in reversed(range(300))]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) > 100


def test_every_input_is_shared_out() -> None:
    for total in (len(TARGETS), 1000, 1_000_000):
        shared = counts(total, TARGETS.values())
        assert sum(shared.values()) == total and min(shared.values()) >= 1


def test_the_command_saves_what_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TARGETS, "planted", Target("planted", 1, lambda _folder: _Planted(lambda data: 1 // 0)))
    wanted = ["--only", "planted", "--save", str(tmp_path)]
    assert main([*wanted, "--count", "40", "--seed", "5"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("seed 5\n") and "FOUND planted, seed 5" in said and "40 inputs" in said
    (saved,) = tmp_path.iterdir()
    assert main([*wanted, "--replay", str(saved)]) == 1
    assert main([*wanted, "--count", "1", "--seed", "5", "--first", saved.name.split("-")[-1]]) == 1
    assert main(["--only", "version", "--count", "10", "--save", str(tmp_path)]) == 0
