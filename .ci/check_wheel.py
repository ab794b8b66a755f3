"""Builds the wheel, installs it into an empty environment, and starts it there, away from the sources.

`protocol` and `simulator` are plain names that other distributions could take: so the wheel must hold the three
packages and nothing else, and all three must come from the same folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("kdbridge", "protocol", "simulator")
WHERE = f"""
import importlib, pathlib
for name in {PACKAGES!r}:
    print(pathlib.Path(importlib.import_module(name).__file__).parent.parent)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """The standard output of a command that must succeed; what it printed is shown when it does not."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"wheel: {' '.join(map(str, command))} failed ({done.returncode})\n{done.stdout}{done.stderr}")
    return done.stdout


def strangers(wheel: Path) -> set[str]:
    """Top-level names in the wheel that should not be there, and ours that are missing."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    typed = {f"{package}/py.typed" for package in PACKAGES} - set(names)
    return (top ^ set(PACKAGES)) | typed


def main() -> None:
    """Build, look inside, install, start."""
    with tempfile.TemporaryDirectory(prefix="kdbridge-wheel-") as name:
        place = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, ROOT, cwd=ROOT)
        (wheel,) = place.glob("*.whl")
        if wrong := strangers(wheel):
            sys.exit(f"wheel: {wheel.name} should hold {', '.join(PACKAGES)} and nothing else; wrong: {sorted(wrong)}")
        venv.create(place / "empty", with_pip=False)
        (site,) = (place / "empty").glob("lib/python*/site-packages")
        run(
            *(sys.executable, "-m", "pip", "--python", place / "empty", "install", "-q", "--disable-pip-version-check"),
            *("--root-user-action=ignore", "-c", ROOT / ".ci/constraints.txt", wheel),
            cwd=place,
        )
        python = place / "empty/bin/python"
        homes = set(run(python, "-c", WHERE, cwd=place).split())
        if homes != {str(site)}:
            sys.exit(f"wheel: the three packages should come from {site}, not from {sorted(homes)}")
        version = run(place / "empty/bin/kdbridge", "--version", cwd=place).splitlines()
        usage = run(python, "-m", "simulator", "--help", cwd=place).splitlines()
        if not version or not usage:
            sys.exit("wheel: kdbridge --version or python -m simulator --help printed nothing")
        print(f"wheel: {wheel.name} installs into an empty environment and starts: {version[0]}")


if __name__ == "__main__":
    main()
