"""What every test may ask for: the data that lies beside the checkout, and Microsoft's debugger engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from tests.referee import Kdexec, engine_home, serving

# Two cores are shared with whatever else runs there: how long one example takes says nothing.
settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", deadline=None, max_examples=20_000, print_blob=True)
_IN_CI = os.environ.get("CI") == "true"
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if _IN_CI else "dev"))

_REFEREE_TIMEOUT = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One engine serves all, one call after the other: whoever asks it may have to wait."""
    for item in items:
        if item.get_closest_marker("referee") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_REFEREE_TIMEOUT))


def _absent(reason: str) -> NoReturn:
    """What is missing is a skip with its reason on a person's machine, a failure in CI."""
    if _IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recordings, references and the debugger engine: KDBRIDGE_SHARED, or ../shared."""
    beside = Path(__file__).resolve().parent.parent.parent / "shared"
    folder = Path(os.environ.get("KDBRIDGE_SHARED", beside))
    if not folder.is_dir():
        _absent(f"{folder} is not here (KDBRIDGE_SHARED names the folder with recordings and references)")
    return folder


@pytest.fixture(scope="session")
def kdexec(shared: Path) -> Iterator[Kdexec]:
    """Microsoft's debugger engine, ready to be called: see tests.referee."""
    tool = shared / "windbg/kdexec"
    if not tool.exists():
        _absent(f"{tool} is not here: the debugger engine cannot be asked")
    if not (engine_home() / "engine/kdexec.exe").exists():
        _absent(f"the debugger engine is not installed: run {tool.parent / 'setup'}, or make referee")
    with serving():
        yield Kdexec(tool)
