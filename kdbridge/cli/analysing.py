"""What the verbs that analyse have in common: a source of which each byte is read once, kept if wished, and names."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import trio

from kdbridge.analysis.reading import ReadOnce
from kdbridge.discovery import discover
from kdbridge.discovery.modules import with_names
from kdbridge.errors import SnapshotError, UsageError
from kdbridge.opening import OpenTarget
from kdbridge.progress import Meter
from kdbridge.snapshot import Snapshot
from kdbridge.source import Source
from kdbridge.symbols import SymbolPath, check_download, symbol_path
from kdbridge.target import Target
from kdbridge.transports import is_target, masked

from .bar import shown_progress
from .gathered import gathered
from .run import known, open_source, say
from .words import quoted, size

__all__ = ["Keeper", "Opened", "SymbolWish", "check_folder", "opened_for_analysis", "symbol_options"]

_CHECKPOINT = 1.0
"""Seconds: a process that is killed loses what it read since then."""


@dataclass(frozen=True, slots=True)
class SymbolWish:
    """Where symbol files may be looked for, and whether servers may be asked."""

    path: SymbolPath
    download: bool


def _wish(symbols: str | None, download: bool) -> SymbolWish:
    path = symbol_path(symbols, os.environ, say)
    if download:
        check_download(path)
    return SymbolWish(path, download)


symbol_options = gathered(
    (
        click.option("--symbols", metavar="PATH", help="Where symbol files (PDB) are: folders and servers, as in "
                     "_NT_SYMBOL_PATH, which is taken if this is not given."),
        click.option("--download", is_flag=True, help="Ask the servers and shares that the symbol path names. Without "
                     "it nothing is asked of the network."),
    ),
    "symbols", _wish, "symbols", "download",
)  # fmt: skip
"""--symbols and --download, which reach a verb as a SymbolWish."""


class Keeper:
    """Takes note of what is read as it comes: into a Snapshot, if there is to be one, and for who watches."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.snapshot: Snapshot | None = None
        self._before: list[tuple[int, bytes]] = []
        self._durable = 0.0
        self._meter: Meter | None = None
        self._told = 0

    def keep(self, address: int, data: bytes) -> None:
        """A piece that was read. Raises SnapshotError, DiskFullError."""
        if self.snapshot is not None:
            self.snapshot.put_virtual(address, data)
            if trio.current_time() >= self._durable + _CHECKPOINT:
                self.snapshot.checkpoint()
                self._durable = trio.current_time()
        elif self.folder is not None:
            self._before.append((address, data))
        self._told += len(data)
        if self._meter is not None:
            self._meter.done = self._told
            self._meter.tell(trio.current_time())

    def begin(self, target: Target, console: bytes) -> None:
        """It is known what machine it is: from now on the Snapshot is there. Raises SnapshotError."""
        if self.folder is None:
            return
        self.snapshot = Snapshot.create(self.folder, target)
        self.snapshot.log("read by kdbridge analyze, by virtual address")
        self.snapshot.console(console)
        for address, data in self._before:
            self.snapshot.put_virtual(address, data)
        self._before.clear()
        self.snapshot.checkpoint()
        self._durable = trio.current_time()

    def know(self, target: Target) -> None:
        """More is known of the machine than when the Snapshot began. Raises SnapshotError."""
        if self.snapshot is not None:
            self.snapshot.target = target
            self.snapshot.save_target()

    def close(self) -> None:
        """Make all durable."""
        if self.snapshot is not None:
            self.snapshot.close()

    @contextmanager
    def watched(self, what: str) -> Iterator[None]:
        """Show how much is read, while this lasts."""
        with shown_progress() as progress:
            self._meter = Meter(progress, what, None)
            try:
                yield
            finally:
                self._meter = None

    def kept_words(self) -> str:
        """What is kept of it, and what can be done with that; empty where nothing is."""
        # What was there before is not ours.
        if self.folder is None or self.snapshot is None:
            return ""
        try:
            with Snapshot.open(self.folder) as snapshot:
                pieces, count = snapshot.pieces
        except SnapshotError:
            return ""
        again = quoted("kdbridge", "analyze", self.folder)
        return f"{pieces} pieces ({size(count)}) are kept in {self.folder}; `{again}` analyses what is there"


@dataclass(slots=True)
class Opened:
    """A source that is ready to be analysed."""

    source: Source
    reading: ReadOnce
    target: Target
    keeper: Keeper = field(repr=False)

    async def know_all(self) -> None:
        """Find out the rest, where there was a first look only. Raises SnapshotError."""
        if isinstance(self.source, OpenTarget):
            self.target = await discover(self.reading)
            self.keeper.know(self.target)

    async def know_modules(self) -> None:
        """Find out the names of all modules, where there was a first look only. Raises SnapshotError."""
        self.target = await with_names(self.reading, self.target)
        self.keeper.know(self.target)

    @property
    def name(self) -> str:
        """What it is called; of a target, without its key."""
        return masked(self.source.name)

    @property
    def console(self) -> str:
        """What the machine printed, as far as anybody listened."""
        if isinstance(self.source, OpenTarget):
            text = bytes(self.source.console)
        else:
            text = self.source.console_text if isinstance(self.source, Snapshot) else b""
        return text.decode("utf-8", "replace").replace("\r", "")


def check_folder(source: str, folder: Path | None) -> None:
    """Before anything is touched. Raises UsageError where there is nothing to be kept, SnapshotError where no room."""
    if folder is None:
        return
    if not is_target(source):
        raise UsageError(f"{source} is no target: --snapshot keeps what is read from one")
    if folder.exists():
        raise SnapshotError(f"{folder} exists already; give --snapshot another one. The target was not touched.")


@asynccontextmanager
async def opened_for_analysis(
    source: str, wait: float, keeper: Keeper | None = None, *, first_look: bool = False
) -> AsyncIterator[Opened]:
    """Open a source and find out what it is, each byte read once, from the first on.

    With `first_look` of a live target only what tells why it stopped; `know_all` finds out the rest.
    """
    keeper = keeper or Keeper(None)
    async with open_source(source, wait) as opened:
        reading = ReadOnce(opened, keeper.keep)
        try:
            if isinstance(opened, OpenTarget):
                with keeper.watched("finding out what it is"):
                    await opened.live.probe_physical()
                    target = await discover(reading, first_look=first_look)
                keeper.begin(target, bytes(opened.console))
                seen = len(opened.console)
            else:
                # What a file's header and lists tell is asked of the file itself.
                target, seen = await known(opened), 0
            yield Opened(opened, reading, target, keeper)
            if keeper.snapshot is not None and isinstance(opened, OpenTarget):
                keeper.snapshot.console(bytes(opened.console[seen:]))
        finally:
            keeper.close()
