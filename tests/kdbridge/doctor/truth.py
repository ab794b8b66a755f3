"""Two hundred lines, drawn by seed, healthy and sick; what the doctor says of each, held against what is true.

python -m tests.kdbridge.doctor.truth writes the tables into docs/verbs/doctor.md.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio
import trio.testing

from kdbridge.doctor.examine import examine_line
from kdbridge.doctor.table import TABLE
from kdbridge.doctor.verdicts import Verdict
from simulator.scenarios import ScenarioOptions, start
from tests.house.tree import ROOT
from tests.kdbridge.doctor.sick import SICKNESSES, Line

__all__ = ["HEALTHY", "PAGE", "TRUTH", "Case", "Outcome", "cases", "examined", "tables", "with_tables"]

PAGE = ROOT / "docs/verbs/doctor.md"
HEALTHY = frozenset({"stopped", "running", "booting", "dumping", "asking"})
"""What a line without any sickness may be called; nobody is heard of a machine that has nothing to say."""

_SCENARIOS = {
    "bugcheck": {"stopped"}, "breakpoint": {"running", "stopped"}, "abandoned-reply": {"stopped"},
    "silent": {"stopped"}, "abandoned-prompt": {"asking"}, "booting": {"booting"},
    "bugcheck-attached": {"dumping", "stopped", "running"}, "running": {"silence"},
}  # fmt: skip
"""Scenarios of the simulator, and what may be said of each on a healthy line."""

_BAUD = "the other end at another speed"
_TEXT = "a console on the same line"
TRUTH: dict[str, tuple[str, frozenset[str]]] = {
    "": ("nothing", frozenset()),
    "flips": ("bits are turned over", frozenset({"bit-errors", "garbled-there"})),
    "drops": ("single bytes get lost", frozenset({"lost-bytes", "garbled-there"})),
    "overrun": ("bytes get lost in bursts", frozenset({"overrun", "lost-bytes", "garbled-there"})),
    "inserts": ("bytes come in", frozenset({"noise", "garbled-there"})),
    "loss": ("packets get lost", frozenset({"lost-packets"})),
    "twice": ("packets come twice", frozenset({"doubled-packets"})),
    "cut": ("packets are cut off", frozenset({"cut-packets"})),
    "xonxoff": ("11 and 13 are taken away", frozenset({"flow-control"})),
    "crlf": ("0A becomes 0D 0A", frozenset({"newlines"})),
    "cr-as-lf": ("0D becomes 0A", frozenset({"newlines"})),
    "seven-bit": ("the eighth bit is lost", frozenset({"seven-bit"})),
    "parity": ("the eighth bit is a parity", frozenset({"parity"})),
    "inverted": ("upside down", frozenset({"inverted"})),
    "iac": ("FF is doubled", frozenset({"telnet"})),
    "deaf": ("the target hears nothing", frozenset({"not-heard"})),
    "mute": ("the target is not heard", frozenset({"silence"})),
    "flips-to-target": ("bits are turned over, to the target only", frozenset({"garbled-there"})),
    "echo": ("what is sent comes back", frozenset({"echo"})),
    "latency": ("an adapter waits 16 ms", frozenset({"slow"})),
    "login": (_TEXT, frozenset({"text", "second-writer"})),
    "sac": (_TEXT, frozenset({"text", "second-writer"})),
    "debugger": ("another debugger talks", frozenset({"another-debugger"})),
    **{name: (_BAUD, frozenset({"wrong-baud"})) for name in SICKNESSES if name.startswith("baud")},
}
"""What is really the matter, in words, and the verdicts that are right then.

Chance hits both ways: where it happens to have hit only what was sent, that it arrives damaged is right as well.
"""

_WITHOUT_A_TRACE = frozenset({"loss", "twice", "latency", "deaf", "mute", "flips-to-target"})
"""What leaves each packet as it is: where nothing is asked, it need not show."""


@dataclass(frozen=True, slots=True)
class Case:
    """One line."""

    seed: int
    scenario: str
    sick: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one line."""

    case: Case
    verdict: Verdict
    visible: bool
    """What came was not as it had been sent."""
    written: bytes
    """All that the doctor sent."""

    @property
    def wrong(self) -> bool:
        """A cause is named that is not the cause, or a line is called well on which damage was to be seen."""
        name, truth = self.verdict.name, TRUTH[self.case.sick][1]
        if name in truth or name == "undecided":
            return False
        if name == "silence":
            return self.visible
        if name in HEALTHY and not self.visible:
            # A sickness that did not show is none; but what the machine does has to be right.
            return name not in _SCENARIOS[self.case.scenario] | {"running"}
        return True


def cases(count: int) -> list[Case]:
    """Drawn by seed: every sickness about as often, a blue screen more often than other machines."""
    drawn = []
    for seed in range(count):
        draw = random.Random(seed)
        sick = SICKNESSES[seed % len(SICKNESSES)]
        drawn.append(Case(seed, draw.choice(["bugcheck"] * 6 + list(_SCENARIOS)), sick))
    return drawn


def examined(case: Case) -> Outcome:
    """What the doctor says, in virtual time."""
    running = start(
        case.scenario, ScenarioOptions(processors=1, memory_size=16 << 20, seed=case.seed + 1, content_size=0)
    )
    line = Line(running.target, case.sick, case.seed)

    async def main() -> Verdict:
        done = await examine_line(line, 115200, 8.0, lambda text: None)
        return done.verdict

    verdict = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    visible = bytes(line.heard) != bytes(line.clean) and case.sick not in _WITHOUT_A_TRACE
    return Outcome(case, verdict, visible, b"".join(line.sent))


# ---- the tables of the page ------------------------------------------------------------------------------------------

_MARKS = ("<!-- verdicts -->", "<!-- truth -->", "<!-- end -->")


def tables(outcomes: Sequence[Outcome]) -> tuple[list[str], list[str]]:
    """The verdicts that there are; and what was said of what."""
    verdicts = ["| verdict | that is | cause | cure | exit code |", "|---|---|---|---|---|"]
    verdicts += [
        f"| `{entry.name}` | {entry.title} | {entry.cause} | {entry.cure} | {entry.exit_code} |"
        for entry in TABLE.values()
    ]
    said: dict[str, Counter[str]] = {}
    for one in outcomes:
        said.setdefault(TRUTH[one.case.sick][0], Counter())[one.verdict.name] += 1
    truth = ["| what is the matter | lines | verdicts |", "|---|---|---|"]
    for name, counter in said.items():
        told = ", ".join(f"`{verdict}` {count}" for verdict, count in sorted(counter.items(), key=_by_count))
        truth.append(f"| {name} | {counter.total()} | {told} |")
    return verdicts, truth


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def with_tables(lines: Iterable[str], outcomes: Sequence[Outcome]) -> list[str]:
    """The page, with the tables as they are now."""
    rows = dict(zip(_MARKS, tables(outcomes), strict=False))
    page: list[str] = []
    inside = False
    for line in lines:
        if line == _MARKS[-1]:
            inside = False
        if not inside:
            page.append(line)
        if line in rows:
            page += ["", *rows[line], ""]
            inside = True
    return page


def main() -> None:
    """Write the tables."""
    outcomes = [examined(case) for case in cases(200)]
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    Path(PAGE).write_text("\n".join(with_tables(lines, outcomes)) + "\n", encoding="utf-8")
    wrong = [one for one in outcomes if one.wrong]
    for one in wrong:
        sys.stdout.write(f"wrong: {one.case}: {one.verdict.name}: {one.verdict.evidence}\n")
    sys.stdout.write(f"{len(outcomes)} lines, {len(wrong)} wrong\n")


if __name__ == "__main__":
    main()
