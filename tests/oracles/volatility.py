"""Volatility 3's crash dump layers: 32 and 64-bit dumps of types 1 and 5, of any size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volatility3.framework import contexts, exceptions
from volatility3.framework.layers import crash, physical

from tests.oracles.oracle import OracleError

__all__ = ["Volatility", "open_oracle"]


@dataclass(frozen=True, slots=True)
class Volatility:
    """An Oracle. `layer` is the memory, `header` the _DUMP_HEADER as Volatility understands it."""

    layer: Any

    @property
    def header(self) -> Any:
        return self.layer.get_header()

    def read_page(self, pfn: int) -> bytes | None:
        try:
            return bytes(self.layer.read(pfn << 12, 4096))
        except exceptions.InvalidAddressException:
            return None

    def pages(self) -> Iterator[int]:
        for start, size, _, _, _ in self.layer.mapping(0, self.layer.maximum_address + 1, ignore_errors=True):
            yield from range(start >> 12, start + size >> 12)


@contextlib.contextmanager
def open_oracle(path: Path) -> Iterator[Volatility]:
    """Open a dump of either width."""
    context = contexts.Context()
    context.config["file.location"] = path.resolve().as_uri()
    file = physical.FileLayer(context, "file", "file")
    try:
        context.add_layer(file)
        context.config["dump.base_layer"] = "file"
        kind = crash.WindowsCrashDump64Layer if file.read(4, 4) == b"DU64" else crash.WindowsCrashDump32Layer
        try:
            layer = kind(context, "dump", "dump")
        except exceptions.LayerException as error:
            raise OracleError(f"volatility3: {error}") from error
        context.add_layer(layer)
        yield Volatility(layer)
    finally:
        file.destroy()
