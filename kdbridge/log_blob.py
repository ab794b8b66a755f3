"""Our own piece of secondary data in a dump: how it came about, for whoever opens it years later. JSON, by a tag."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from protocol.address import PageRun, PageRuns
from protocol.dumpfile.secondary import encode_secondary

__all__ = ["LOG_BLOB", "encode_log", "inferred_of", "parse_log", "runs_as_json"]

LOG_BLOB = "6b647262-9a1d-4c7e-8f0e-3d5a4c6f6721"
"""The tag (a GUID, as `.enumtag` shows it)."""

_LARGEST = 1 << 26


def encode_log(document: Mapping[str, object], build: int) -> bytes:
    """The bytes that follow the last page. `build` as the version packet has it."""
    return encode_secondary([(LOG_BLOB, json.dumps(document, indent=1).encode())], 0xF000_0000 | build)


def parse_log(data: bytes) -> dict[str, Any]:
    """The document; empty where the bytes are none of ours."""
    if len(data) > _LARGEST:
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
    return PageRuns(PageRun(pair[0], pair[1]) for pairs in lists for pair in pairs if _is_run(pair))


def _is_run(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and 0 <= n < 1 << 40 for n in pair)
