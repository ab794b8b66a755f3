"""What the tests of several codecs read: packets of sessions that real debuggers and real targets had."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.protocol.kdnet_capture import Captured, read_capture


@pytest.fixture(scope="session")
def captured(shared: Path) -> list[Captured]:
    """The data packets of a real WinDbg and a real boot debugger, each with its description by somebody else."""
    return read_capture(shared)
