"""All that is attacked, by name, and how many inputs of a run each gets."""

from __future__ import annotations

from collections.abc import Collection

from tests.fuzz.analysis import ANALYSIS
from tests.fuzz.damaged import DAMAGED
from tests.fuzz.driver import Target
from tests.fuzz.dumps import DUMPS
from tests.fuzz.files import FILES
from tests.fuzz.line import LINE
from tests.fuzz.messages import MESSAGES
from tests.fuzz.triage import TRIAGE
from tests.fuzz.wire import WIRE

__all__ = ["TARGETS", "counts"]

TARGETS: dict[str, Target] = {
    target.name: target for target in (*WIRE, *MESSAGES, *DUMPS, *FILES, *TRIAGE, *LINE, *ANALYSIS, *DAMAGED)
}


def counts(total: int, targets: Collection[Target]) -> dict[str, int]:
    """So many inputs in all, shared out: every target gets one at least, while they last."""
    spare, shares = max(total - len(targets), 0), sum(target.share for target in targets)
    found: dict[str, int] = {}
    for number, target in enumerate(targets):
        more = spare * target.share // shares
        found[target.name] = (number < total) + more
        spare -= more
        shares -= target.share
    return found
