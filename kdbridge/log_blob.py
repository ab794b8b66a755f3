"""Our own piece of secondary data in a dump: how it came about, for whoever opens it years later. JSON, by a tag."""

from __future__ import annotations

import bisect
import itertools
import json
from collections.abc import Mapping
from typing import Any

from protocol.address import PageRun, PageRuns
from protocol.dumpfile.secondary import encode_secondary

__all__ = ["LOG_BLOB", "MOST_LOG", "encode_log", "inferred_left_out", "inferred_of", "parse_log", "runs_as_json"]

LOG_BLOB = "6b647262-9a1d-4c7e-8f0e-3d5a4c6f6721"
"""The tag (a GUID, as `.enumtag` shows it)."""

MOST_LOG = 1 << 20
"""Bytes of a log. More is neither written nor looked at: anybody may have written a file, and JSON of this size takes
less than 40 MiB."""

_MOST_TO_READ = MOST_LOG // 8
"""Bytes that are spread over lines for people: that makes four times as many of them, and is slow."""

_LEFT_OUT = "inferred_left_out"


def encode_log(document: Mapping[str, object], build: int) -> bytes:
    """The bytes that follow the last page. `build` as the version packet has it."""
    return encode_secondary([(LOG_BLOB, _within_bounds(document))], 0xF000_0000 | build)


def _within_bounds(document: Mapping[str, object]) -> bytes:
    """As one reads it, where it is short; else without spaces, and at last without the runs that are too many.

    Memory that was zeroed may be torn into any number of runs. All else that the log says is short.
    """
    data = _compact(document)
    if len(data) <= _MOST_TO_READ:
        return json.dumps(document, indent=1).encode()
    if len(data) <= MOST_LOG:
        return data
    sorts = document.get("inferred")
    lists = dict(sorts) if isinstance(sorts, dict) else {}
    left = MOST_LOG - len(_compact({**document, "inferred": dict.fromkeys(lists, ()), _LEFT_OUT: 1 << 40}))
    kept: dict[str, list[list[int]]] = {}
    pages = 0
    for sort, pairs in lists.items():
        ends = list(itertools.accumulate(len(f"[{base},{count}],") for base, count in pairs))
        fit = bisect.bisect_right(ends, left)
        left -= ends[fit - 1] if fit else 0
        kept[sort] = pairs[:fit]
        pages += sum(count for _base, count in pairs[fit:])
    return _compact({**document, "inferred": kept, _LEFT_OUT: pages})


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def inferred_left_out(document: Mapping[str, Any]) -> int:
    """Pages that were inferred, and that the log does not name one by one: their runs were too many for it."""
    pages = document.get(_LEFT_OUT)
    return pages if type(pages) is int and 0 < pages < 1 << 40 else 0


def parse_log(data: bytes) -> dict[str, Any]:
    """The document; empty where the bytes are none of ours, or too many."""
    if len(data) > MOST_LOG:
        return {}
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def runs_as_json(runs: PageRuns) -> list[list[int]]:
    """Runs as pairs of first frame and count."""
    return [[run.base_page, run.page_count] for run in runs]


def inferred_of(document: Mapping[str, Any]) -> PageRuns:
    """The frames that a dump's log says were inferred; what is not believable is left out."""
    sorts = document.get("inferred")
    lists = [pairs for pairs in sorts.values() if isinstance(pairs, list)] if isinstance(sorts, dict) else []
    believed = sorted(tuple(pair) for pairs in lists for pair in pairs if _is_run(pair))
    return PageRuns(PageRun(base, count) for base, count in believed)


def _is_run(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and 0 <= n < 1 << 40 for n in pair)
