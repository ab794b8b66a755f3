"""The log in a dump: it stays within its bounds, and one that does not is named and never read."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from kdbridge.dump.verify import verify
from kdbridge.log_blob import LOG_BLOB, MOST_LOG, encode_log, inferred_left_out, inferred_of, parse_log
from kdbridge.memory.files import DumpFile
from protocol.address import PageRun, PageRuns
from protocol.dumpfile.header import DumpType
from protocol.dumpfile.plan import plan_bitmap
from protocol.dumpfile.secondary import encode_secondary
from tests.dumps import HEADER, made_up_memory, rendered

_RUNS = PageRuns([PageRun(0x1AD, 3)])
_HEADERS = 0x10 + 0x20


def _dump(folder: Path, secondary: bytes) -> Path:
    path = folder / "x.dmp"
    plan = plan_bitmap(HEADER, _RUNS, _RUNS, DumpType.BITMAP_KERNEL).with_secondary(secondary)
    path.write_bytes(rendered(plan, made_up_memory(_RUNS)))
    return path


def _document(count: int) -> dict[str, object]:
    """Memory that is torn into so many runs of one page and of two."""
    rng = random.Random(count)
    zero = [[3 * at, rng.choice((1, 2))] for at in range(count)]
    return {"made_by": "kdbridge", "inferred": {"inferred_zero": zero, "inferred_image": [[1 << 30, 7]]}, "log": "x\n"}


def _written(document: dict[str, object]) -> dict[str, object]:
    """What anybody reads who knows JSON: the bytes behind both headers, without what fills up the last word."""
    data = encode_log(document, 19041)[_HEADERS:].rstrip(b"\0")
    assert len(data) <= MOST_LOG
    found: dict[str, object] = json.loads(data)
    return found


@pytest.mark.parametrize("count", [10, 60_000])
def test_a_log_that_fits_is_written_whole(count: int) -> None:
    assert _written(_document(count)) == _document(count)
    few = encode_log(_document(10), 19041)
    assert b'\n "made_by": "kdbridge"' in few, "for people, where there is room"


def test_of_a_log_that_is_too_long_runs_are_left_out_and_counted() -> None:
    document = _document(100_000)
    found = _written(document)
    sorts, whole = found["inferred"], document["inferred"]
    assert isinstance(sorts, dict) and isinstance(whole, dict)
    kept = sorts["inferred_zero"]
    assert kept == whole["inferred_zero"][: len(kept)] and len(kept) > 60_000
    pages = sum(count for pairs in whole.values() for _base, count in pairs)
    there = sum(count for pairs in sorts.values() for _base, count in pairs)
    assert inferred_left_out(found) == pages - there > 0
    assert inferred_of(found).page_count == there
    assert {**found, "inferred": None, "inferred_left_out": None} == {
        **document, "inferred": None, "inferred_left_out": None
    }  # fmt: skip


@pytest.mark.parametrize("said", [None, True, "7", -1, 0, 1.5, 1 << 40, [7]])
def test_a_count_that_cannot_be_is_none(said: object) -> None:
    assert inferred_left_out({"inferred_left_out": said}) == 0


async def test_verify_tells_of_pages_that_the_log_does_not_name(tmp_path: Path) -> None:
    document: dict[str, object] = {"inferred": {"inferred_zero": [[0x1AE, 1]]}, "inferred_left_out": 5}
    with DumpFile(_dump(tmp_path, encode_log(document, 19041))) as dump:
        notes = (await verify(dump)).notes
    assert "1 pages were not read from the target, but inferred" in notes
    assert "5 more were inferred: which, its log had no room to name" in notes


@pytest.mark.parametrize("size", [MOST_LOG, MOST_LOG + 1, 3 * MOST_LOG])
def test_a_log_of_more_than_its_bounds_is_named_and_not_read(size: int, tmp_path: Path) -> None:
    payload = b'{"inferred":{"a":[[430,1]]},"b":['.ljust(size - 2) + b"]}"
    with DumpFile(_dump(tmp_path, encode_secondary([(LOG_BLOB, payload)], 0xF0004A61))) as dump:
        looked = 0
        plain = dump._file.read

        def read(offset: int, size: int) -> bytes:
            nonlocal looked
            looked += size
            return plain(offset, size)

        dump._file.read = read  # type: ignore[method-assign]
        if size <= MOST_LOG:
            assert (dump.inferred, dump.layout.shortcomings) == (PageRuns([PageRun(430, 1)]), ())
        else:
            assert not dump.inferred and looked == 0
            (said,) = dump.layout.shortcomings
            assert said.startswith(f"the log of how it came about has {size:#x} bytes, more than 0x100000, and was not")
            assert said.endswith(": which pages were inferred is not known")
    assert parse_log(payload) == ({} if size > MOST_LOG else json.loads(payload))
