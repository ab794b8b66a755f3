"""What the pages' commands find in their folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.props import make_props
from tests.docs.runner import Runner
from tests.docs.stage import ENVIRONMENT


@pytest.fixture(scope="session")
def props(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with server.dmp and server.snapshot."""
    folder = tmp_path_factory.mktemp("props")
    make_props(folder)
    return folder


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """kdbridge, loaded once."""
    with Runner(ENVIRONMENT) as running:
        yield running
