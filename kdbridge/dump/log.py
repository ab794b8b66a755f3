"""What a dump's log says: where its pages come from, what is missing, what was inferred and how."""

from __future__ import annotations

from pathlib import Path

from kdbridge.log_blob import runs_as_json
from kdbridge.snapshot import PageState, Snapshot

from .held import HeldPages

__all__ = ["log_of"]

_MOST_LOG = 1 << 15


def log_of(source: HeldPages, missing: int) -> dict[str, object]:
    """The document, without what only one kind of dump has."""
    document: dict[str, object] = {
        "made_by": "kdbridge",
        "source": Path(source.name).name,
        "pages_read": (source.held - source.inferred).page_count,
        "pages_unreadable": source.unreadable.page_count,
        "missing_pages": missing,
        "inferred": {},
    }
    if isinstance(source, Snapshot):
        document["inferred"] = {
            state.name.lower(): runs_as_json(source.coverage.runs(state)) for state in PageState if state.inferred
        }
        document["log"] = source.log_text[-_MOST_LOG:].decode("utf-8", "replace")
    elif source.inferred:
        document["inferred"] = {"before": runs_as_json(source.inferred)}
    return document
