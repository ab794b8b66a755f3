"""One image with a real symbol file, and what of it is asked in these tests."""

from __future__ import annotations

from pathlib import Path

from kdbridge.symbols.store import ImageIdentity
from kdbridge.target import Module
from tests.protocol.pdb import built, witness

KEY = witness.key()
WANTED = ImageIdentity("rivers.pdb", KEY[:32], int(KEY[32:], 16))
MODULE = Module("rivers.sys", r"\SystemRoot\System32\drivers\rivers.sys", 0xFFFFF800_10000000, 0x16000, 0, 0, 0, 0)
DATA = witness.PDB.read_bytes()
PLACE = f"rivers.pdb/{KEY}/rivers.pdb"


def other_build() -> bytes:
    """A whole symbol file with another GUID."""
    streams = built.streams_of(DATA)
    assert streams[1] is not None
    streams[1] = streams[1][:12] + bytes(16) + streams[1][28:]
    return built.msf_file(streams)


def put(path: Path, data: bytes = DATA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


async def identity(module: Module) -> tuple[str, str, int] | None:
    """What the image's debug directory says."""
    return (r"C:\build\rivers.pdb", WANTED.guid, WANTED.age) if module == MODULE else None
