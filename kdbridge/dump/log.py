"""What a dump's log says: where its pages come from, what is missing, what was inferred and how."""

from __future__ import annotations

from pathlib import Path

from kdbridge.log_blob import runs_as_json
from kdbridge.snapshot import PageState, Snapshot
from protocol.address import PageRuns

from .held import HeldPages

__all__ = ["log_of"]

_MOST_LOG = 1 << 15


def log_of(source: HeldPages, held: PageRuns, unreadable: PageRuns, missing: int) -> dict[str, object]:
    """The document, without what only one kind of dump has. `held` and `unreadable` are of the pages that it needs."""
    inferred = held & source.inferred
    document: dict[str, object] = {
        "made_by": "kdbridge",
        "source": Path(source.name).name,
        "pages_read": held.page_count - inferred.page_count,
        "pages_unreadable": unreadable.page_count,
        "missing_pages": missing,
        "inferred": {},
    }
    if isinstance(source, Snapshot):
        document["inferred"] = {
            state.name.lower(): runs_as_json(source.coverage.runs(state)) for state in PageState if state.inferred
        }
        document["log"] = source.log_text[-_MOST_LOG:].decode("utf-8", "replace")
    elif inferred:
        document["inferred"] = {"before": runs_as_json(inferred)}
    return document
