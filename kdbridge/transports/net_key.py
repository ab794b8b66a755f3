"""The key of a network target: from its address, from a file, or from KDBRIDGE_KEY. It is shown to nobody."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from kdbridge.errors import FileError, UsageError
from protocol.kdnet import ControlKey, KeyTextError, parse_key

from .address import TargetAddress

__all__ = ["VARIABLE", "find_any_key", "find_key"]

VARIABLE = "KDBRIDGE_KEY"
_LONGEST_FILE = 4096


def find_key(address: TargetAddress, environment: Mapping[str, str]) -> tuple[ControlKey, tuple[str, ...]]:
    """The key, and what its owner should know of where it is kept. Raises UsageError, FileError."""
    path = dict(address.options).get("keyfile")
    notes: tuple[str, ...] = ()
    if address.key:
        text, where = address.key, address.url
    elif path is not None:
        text, notes = _read(Path(path))
        where = path
    else:
        text, where = environment.get(VARIABLE, ""), VARIABLE
        if not text.strip():
            raise UsageError(
                f"{address.url}: there is no key: write key=w.x.y.z as bcdedit /dbgsettings shows it at the target, "
                f"put it into {VARIABLE}, or name a file with keyfile=PATH; kdbridge keygen makes one"
            )
    try:
        return parse_key(text), notes
    except KeyTextError as error:
        raise UsageError(f"{where}: {error}") from None


def find_any_key(address: TargetAddress, environment: Mapping[str, str]) -> tuple[ControlKey | None, tuple[str, ...]]:
    """The same, where there may be none. Raises UsageError, FileError for one that is none."""
    if not address.key and "keyfile" not in dict(address.options) and not environment.get(VARIABLE, "").strip():
        return None, ()
    return find_key(address, environment)


def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LONGEST_FILE)
    except OSError as error:
        raise FileError(f"the key file {path} cannot be read: {error.strerror or error}") from None
    text = data.decode("ascii", "replace")
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        return text, (f"others on this machine can read the key in {path}; chmod 600 {path} keeps it from them",)
    return text, ()
