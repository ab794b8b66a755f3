"""The recorded session of a real WinDbg and a real kernel: a healthy line, on which another debugger talks."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbridge.doctor.signs import find_signs
from kdbridge.doctor.table import HEALTHY
from kdbridge.doctor.verdicts import judge
from kdbridge.overheard import Overheard
from tests.recording import read_chunks


@pytest.fixture(scope="module")
def session(shared: Path) -> Overheard:
    """Both ways, as if we had been that debugger."""
    overheard = Overheard()
    for chunk in read_chunks(shared):
        overheard.add(chunk.at, chunk.from_host, chunk.data)
    return overheard


def test_as_its_debugger_sees_it_nothing_is_damaged(session: Overheard) -> None:
    signs = find_signs(session)
    assert signs.damage.good > 50 and signs.damage.damaged == 0
    assert not signs.strangers and not signs.echoed and signs.understood
    verdict = judge(signs)
    assert verdict.name == "undecided" or verdict.exit_code == HEALTHY, verdict


def test_as_a_listener_hears_it_another_debugger_talks(session: Overheard) -> None:
    overheard = Overheard()
    for piece in session.pieces:
        overheard.add(piece.at, False, piece.data)
    assert judge(find_signs(overheard)).name == "another-debugger"
    overheard = Overheard()
    for piece in session.pieces:
        if not piece.sent:
            overheard.add(piece.at, False, piece.data)
    assert judge(find_signs(overheard)).name == "another-debugger"
