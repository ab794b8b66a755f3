"""At 5 % packet loss, and at one bit error in 10,000, each way: what comes home is the memory, byte for byte.

At that rate of bit errors some make up for others in the sum, and KD's checksum lets them through: so it is read twice.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio.testing

from kdbridge.target import Target
from tests.end_to_end.noisy import NoisyDump, found_over_a_good_line, noisy_dump

pytestmark = pytest.mark.slow

_SEEDS = 100
_AT_ONCE = 10
"""Seeds of one test, of which the last finds out everything over its own line."""
_LINES = {"loss=0.05": (16, 0.0), "flip=1e-4": (6, 1.0)}
"""What is wrong with the line, how many pages are read, and what share of them twice."""


@pytest.fixture(scope="module")
def found() -> Target:
    return found_over_a_good_line()


@pytest.mark.parametrize("faults", _LINES)
@pytest.mark.parametrize("first", range(0, _SEEDS, _AT_ONCE))
async def test_a_dump_is_the_memory_byte_for_byte(
    faults: str, first: int, found: Target, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    made: list[NoisyDump] = []
    pages, share = _LINES[faults]
    for seed in range(first, first + _AT_ONCE):
        known = None if seed == first + _AT_ONCE - 1 else found
        dump = await noisy_dump(tmp_path, f"{faults},seed={seed}", seed, found=known, pages=pages, share=share)
        assert dump.wrong == (), f"{faults},seed={seed}"
        made.append(dump)
        shutil.rmtree(tmp_path / f"{seed}.kdsnap")
    # The line was as bad as it should be.
    assert sum(dump.seconds for dump in made) > 1.0
    assert "flip" not in faults or sum(dump.discarded for dump in made) > 100


async def test_read_once_some_errors_are_not_seen(
    found: Target, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """What reading twice is for: two errors in one packet of which one adds what the other takes."""
    made = [
        await noisy_dump(tmp_path, f"flip=1e-4,seed={seed}", seed, found=found, automatic=False) for seed in range(10)
    ]
    assert all(dump.wrong == dump.unseen for dump in made)
    assert any(dump.wrong for dump in made)


async def test_on_a_good_line_nothing_is_thrown_away(
    found: Target, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    dump = await noisy_dump(tmp_path, "seed=1", 1, found=found)
    assert (dump.wrong, dump.discarded, dump.seconds) == ((), 0, 0.0)


@pytest.mark.parametrize("seed", range(5))
async def test_once_a_page_is_known_to_have_come_wrong_those_before_it_are_put_right_too(
    seed: int, found: Target, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    line = f"keepsum=0.1,seed={seed}"
    for automatic in (False, True):
        folder = tmp_path / f"{automatic}"
        folder.mkdir()
        dump = await noisy_dump(folder, line, seed, found=found, pages=120, share=0.25, automatic=automatic)
        assert (dump.wrong == ()) == automatic, f"{line}: {dump.wrong}"
