"""What one machine at a blue screen gave, brought home once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulator.kernel import SimulatedKernel
from tests.kdbridge.cli.calling import call, sim


@dataclass(frozen=True)
class Home:
    """Dumps and Snapshots of the machine that `sim()` is, and the truth about it."""

    folder: Path
    kernel: SimulatedKernel
    complete: Path
    snapshot: Path
    """With all pages of the complete dump."""
    small: Path
    """A kernel dump."""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    complete, snapshot, small = folder / "complete.dmp", folder / "complete.snapshot", folder / "kernel.dmp"
    ended = call("dump", sim(), complete, "--keep-snapshot", snapshot)
    assert ended.code == 0, ended.err
    again = call("dump", sim(), small, "--kind", "kernel")
    assert again.code == 0, again.err
    return Home(folder, ended.machine.kernel, complete, snapshot, small)


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user who may not do everything, in tmp_path: to root, nothing is forbidden."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
