"""What a dump was asked for, kept in its Snapshot: so that whoever goes on with it needs to say nothing again.

No key is kept, and nothing that would change the target: that is asked for anew each time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from .errors import SnapshotError
from .snapshot.whole import write_whole

__all__ = ["DumpOrder"]

_FILE = "order.json"
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class DumpOrder:
    """`kdbridge dump TARGET OUT --kind … --layout … --comment …`, with OUT as an absolute path."""

    target: str
    out: str
    kind: str
    layout: str
    comment: str

    def save(self, folder: Path) -> None:
        """Keep it in this Snapshot. Raises SnapshotError."""
        try:
            write_whole(folder / _FILE, json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=1).encode())
        except OSError as error:
            raise SnapshotError(f"{folder} cannot be written: {error.strerror or error}") from None

    @classmethod
    def load(cls, folder: Path) -> DumpOrder:
        """What this Snapshot was asked for. Raises SnapshotError where it does not say."""
        path = folder / _FILE
        try:
            document = json.loads(path.read_bytes())
        except OSError as error:
            raise SnapshotError(
                f"{folder} does not say what it was made for: {error.strerror or error} ({path}). "
                "`kdbridge convert --partial` makes a dump of what it holds"
            ) from None
        except (ValueError, RecursionError):
            raise SnapshotError(f"{path} is not valid JSON: the Snapshot is damaged") from None
        names = [field.name for field in fields(cls)]
        good = isinstance(document, dict) and document.get("schema") == _SCHEMA
        if not good or not all(isinstance(document.get(name), str) for name in names):
            raise SnapshotError(f"{path} is no order of schema {_SCHEMA}: it is damaged, or of another version")
        return cls(**{name: document[name] for name in names})
