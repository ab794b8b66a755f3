"""LeechCore, on which MemProcFS stands: 64-bit dumps of types 1, 5 and 6, in files of 16 MiB and more.

It opens what it does not know as raw memory, without a word, and can crash or hang: so it runs in its own process.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.oracles.oracle import OracleError

__all__ = ["LEAST_FILE_SIZE", "LeechCore", "open_oracle"]

LEAST_FILE_SIZE = 16 << 20

_CHILD = Path(__file__).with_name("leechcore_child.py")
_TIMEOUT = 60.0
_PAGE = 4096


@dataclass(slots=True)
class LeechCore:
    """An Oracle. `ranges` are (first byte, size) of what LeechCore says is memory."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    ranges: tuple[tuple[int, int], ...] = ()

    def read_page(self, pfn: int) -> bytes | None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(struct.pack("<Q", pfn))
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._failed("went away") from None
        return self.receive(_PAGE) if self.receive(1) == b"\1" else None

    def pages(self) -> Iterator[int]:
        for base, size in self.ranges:
            yield from range(base >> 12, base + size >> 12)

    def receive(self, size: int) -> bytes:
        """Exactly so many bytes of the child's answer."""
        assert self.process.stdout is not None
        pipe, data = self.process.stdout.fileno(), bytearray()
        while len(data) < size:
            if not select.select([pipe], [], [], _TIMEOUT)[0]:
                raise self._failed(f"said nothing for {_TIMEOUT:g} s")
            piece = os.read(pipe, size - len(data))
            if not piece:
                raise self._failed("went away")
            data += piece
        return bytes(data)

    def _failed(self, how: str) -> OracleError:
        self.process.kill()
        status = self.process.wait()
        self.errors.seek(0)
        return OracleError(f"LeechCore {how} (status {status}): {self.errors.read().decode('utf-8', 'replace')}")


@contextlib.contextmanager
def open_oracle(path: Path) -> Iterator[LeechCore]:
    """Open a dump. Raises OracleError for what LeechCore refuses, and for what it would take for raw memory."""
    _refuse_what_it_takes_for_raw_memory(path)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-I", str(_CHILD), str(path.resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,  # what stays in a buffer when the child dies would raise once more on closing
        )
        with process:
            oracle = LeechCore(process, errors)
            try:
                count = struct.unpack("<I", oracle.receive(4))[0]
                oracle.ranges = tuple(struct.iter_unpack("<QQ", oracle.receive(16 * count)))
                yield oracle
            finally:
                if process.poll() is None:
                    process.kill()


def _refuse_what_it_takes_for_raw_memory(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(0x1000)
    wide = head[:8] == b"PAGEDU64"
    kind = int.from_bytes(head[0xF98:0xF9C] if wide else head[0xF88:0xF8C], "little")
    if not wide and head[:8] != b"PAGEDUMP":
        raise OracleError("LeechCore would take this for raw memory: it is no dump")
    if kind not in ((1, 5, 6) if wide else (1,)):
        raise OracleError(f"LeechCore would take this for raw memory: it does not know type {kind:X}")
    if path.stat().st_size < LEAST_FILE_SIZE:
        raise OracleError(f"LeechCore reads no file of less than {LEAST_FILE_SIZE >> 20} MiB")
