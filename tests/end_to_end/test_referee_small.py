"""Microsoft's engine opens small dumps: of simulated machines, and of a real crash that went over the line again."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

import kdbridge
from kdbridge import DumpKind
from kdbridge.plan import small_plan
from kdbridge.transports.sim import open_sim
from protocol.dumpfile.secondary import format_guid, parse_guid
from simulator.kernel import SimulatedKernel
from tests.end_to_end import truth
from tests.end_to_end.printed import Loaded, parse_bug_check, parse_modules, parse_session
from tests.end_to_end.seen import assert_standing
from tests.kdbridge.cli.calling import program, served
from tests.referee import Kdexec, Transcript, parse

pytestmark = pytest.mark.referee

_LOG = format_guid(parse_guid("6b647262-9a1d-4c7e-8f0e-3d5a4c6f6721")).upper()
_TALK = re.compile(
    r"\[kdexec\].*|Loading (Dump File|Kernel|User|unloaded).*|\.+|Comment: .*|.*(nosyms|Symbol|symbol).*|"
    r"Response .*|Executable search path is:.*|Windows .*|Product: .*|Built by: .*|Machine Name:.*|Kernel base = .*|"
    r"Debug session time: .*|System Uptime: .*|A fatal system error has occurred\.|Module name .*|"
    r"\w+ +The system cannot.*|"
    r"Bugcheck code .*|Arguments .*|\*+( +(Bugcheck Analysis +)?\*)?|RetAddr .*|[0-9a-f]{8}`[0-9a-f]{8} : .*|\s*"
)  # fmt: skip


def _small(folder: Path, scenario: str, **options: str) -> tuple[Path, SimulatedKernel]:
    way = open_sim(f"sim:{scenario}", scenario, options)
    path = folder / "small.dmp"

    async def bring() -> None:
        async with kdbridge.open(way.url, transport=way) as target:
            snapshot = await target.snapshot(folder / "snapshot", small_plan)
        with snapshot:
            made = await kdbridge.render(snapshot, snapshot.target, path, kind=DumpKind.SMALL)
        assert made.missing == 0 and made.shortcomings == ()

    trio.run(bring, clock=trio.testing.MockClock(autojump_threshold=0))
    return path, way.running.kernel


def _complaints(opening: str) -> set[str]:
    """What the engine said while opening, beside its usual talk, without names and numbers."""
    lines = {line.strip() for line in opening.splitlines()}
    # Which image it is does not matter.
    lines = {re.sub(r"(image|for) \S+\.(exe|sys|dll)", r"\1 …", line) for line in lines}
    return {line for line in lines if not _TALK.fullmatch(line)}


def _of(number: int) -> str:
    return f"~{number}s;r;k"


@pytest.mark.parametrize("processors", [1, 4, 64])
def test_the_engine_sees_the_machine_in_our_small_dump(
    processors: int, kdexec: Kdexec, tmp_path: Path, shared: Path
) -> None:
    path, kernel = _small(tmp_path, "bugcheck", processors=str(processors), memory="32M")
    each = [_of(processor.number) for processor in kernel.processors]
    seen = parse(kdexec("-z", path, ".bugcheck", "vertarget", "lm", ".thread", ".process", ".enumtag", *each))
    assert parse_bug_check(seen[".bugcheck"].text) == kernel.bug_check
    assert parse_session(seen["vertarget"].text) == truth.session(kernel)
    assert parse_modules(seen["lm"].text) == _shortened(truth.loaded(kernel))
    for processor in kernel.processors:
        # Without the images' files, which nobody has here, the engine says so when it first needs one.
        text = re.sub(r"(Unable to load image|\*\*\*) .*\n", "", seen[_of(processor.number)].text)
        assert_standing(text, kernel, processor.number)
    stopped = kernel.processors[kernel.stopped_processor]
    assert _pointer(seen[".thread"].text) == stopped.thread
    assert _pointer(seen[".process"].text) == stopped.process
    assert _LOG.replace("-", "") in seen[".enumtag"].text.replace("-", "")
    real = parse(kdexec("-z", shared / "data" / "dumps" / "triage_x64.dmp"))
    assert _complaints(seen.opening) <= _complaints(real.opening)


def _shortened(loaded: Loaded) -> Loaded:
    """A small dump has room for twelve characters of an unloaded driver's name (dump-formats 4.2)."""
    return replace(loaded, unloaded=[(name[:12], start, end) for name, start, end in loaded.unloaded])


def _pointer(text: str) -> int:
    found = re.search(r"is now ([0-9a-f]{8}`[0-9a-f]{8})", text)
    assert found is not None, text
    return int(found[1].replace("`", ""), 16)


@pytest.fixture(scope="module")
def real(shared: Path) -> Path:
    return shared / "data" / "dumps" / "triage_x64.dmp"


def _asked(kdexec: Kdexec, path: Path, processors: int) -> Transcript:
    each = [_of(number) for number in range(processors)]
    return parse(kdexec("-z", path, ".bugcheck", "vertarget", "lm", "k", *each))


def test_a_real_crash_goes_over_the_line_and_shows_the_same(kdexec: Kdexec, tmp_path: Path, real: Path) -> None:
    out = tmp_path / "again.dmp"
    with served(str(real), "--on", f"unix:{tmp_path / 'line'}") as machine:
        ended = program("dump", machine.url, out, "--kind", "small")
    assert ended.code == 1, "the physical memory runs are in no small dump"
    before, after = _asked(kdexec, real, 16), _asked(kdexec, out, 16)
    assert len(before["lm"].lines) > 150
    assert [answer.text for answer in after.answers] == [answer.text for answer in before.answers]


def test_a_real_small_dump_converted_shows_the_same(kdexec: Kdexec, tmp_path: Path, real: Path) -> None:
    out = tmp_path / "converted.dmp"
    ended = program("convert", real, out, "--kind", "small")
    assert ended.code == 0, ended.err
    before, after = _asked(kdexec, real, 16), _asked(kdexec, out, 16)
    assert [answer.text for answer in after.answers] == [answer.text for answer in before.answers]


@pytest.mark.parametrize("kind", ["kernel", "active", "complete"])
def test_a_dump_of_any_kind_goes_round(kind: str, kdexec: Kdexec, tmp_path: Path) -> None:
    """Our dump, served again, dumped again: as small and as the same kind, the engine sees what it saw."""
    first = tmp_path / "first.dmp"
    assert program("dump", "sim:bugcheck?memory=32M&processors=4", first, "--kind", kind).code == 0
    for again in ("small", kind):
        out = tmp_path / f"{again}.dmp"
        with served(str(first), "--on", f"unix:{tmp_path / again}") as machine:
            ended = program("dump", machine.url, out, "--kind", again)
        assert ended.code in (0, 1), ended.err
        ask = partial(_asked, kdexec, processors=4)
        before, after = ask(first), ask(out)
        assert parse_bug_check(after[".bugcheck"].text) == parse_bug_check(before[".bugcheck"].text)
        loaded = parse_modules(before["lm"].text)
        assert parse_modules(after["lm"].text) == (_shortened(loaded) if again == "small" else loaded)
        for number in range(4):
            assert _plain(after[_of(number)].text) == _plain(before[_of(number)].text)


def _plain(text: str) -> list[str]:
    """Registers and stack, without what a debugger calls the places: a small dump has no exports to name them by."""
    lines = [line for line in text.splitlines() if re.match(r"r[a-z0-9]{2}=|[0-9a-f]{8}`[0-9a-f]{8} ", line)]
    return [re.sub(r"(`[0-9a-f]{8} [0-9a-f]{8}`[0-9a-f]{8}) .*", r"\1", line) for line in lines]
