"""A slice of the long run, the same in every gate: only named errors, no hang, memory bounded.

More, from any seed: python -m tests.fuzz --count 1000000
"""

from __future__ import annotations

import pytest

from tests.fuzz.driver import fuzz
from tests.fuzz.targets import TARGETS, counts

_SLICE = 20_000
_SEED = 1
_LONG = ("triage", "dump-file", "lying-target")
"""Whole files and machines: each takes seconds."""


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow) if one in _LONG else one for one in TARGETS]
)
def test_hostile_input_does_no_harm(name: str) -> None:
    target = TARGETS[name]
    count = counts(_SLICE, TARGETS.values())[name]
    result = fuzz(target, count, _SEED)
    assert result.findings == [], "\n".join(map(str, result.findings))
    assert result.count == count
    # Inputs that are all refused, or all taken where some must not be, would show nothing.
    assert result.taken >= count // 50
    assert (result.taken < count) == target.refuses
