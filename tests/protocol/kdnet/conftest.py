"""What the tests of several files of KDNET read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.protocol.kdnet.recorded import Frame, read_frames, read_summary


@pytest.fixture(scope="session")
def summary(shared: Path) -> dict[str, Any]:
    """The description of the recordings, and the synthetic vectors."""
    return read_summary(shared)


@pytest.fixture(scope="session")
def frames(shared: Path) -> list[Frame]:
    """All 955 frames of the recorded session."""
    return read_frames(shared)
