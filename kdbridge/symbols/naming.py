"""Names and offsets of loaded images from their symbol files."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from kdbridge.errors import UsageError
from kdbridge.target import Module
from protocol.errors import KdError
from protocol.pdb import Pdb

from .path import Folder, Server, SymbolPath
from .store import ImageIdentity, find_in, image_identity, is_folder, open_pdb

__all__ = ["Identity", "PdbSymbols", "check_download", "pdb_symbols"]

Identity = Callable[[Module], Awaitable[tuple[str, str, int] | None]]
"""What an image's debug directory (RSDS) names: the symbol file, its GUID in 32 digits, its age. None: not known."""

_ELSEWHERE = ". Only Windows knows shares by name: name the folder that it is mounted at"
_MOST_HELD = 64
"""Symbol files of which the index is held; one of a kernel's is about a megabyte."""
_MOST_NOTES = 256
_MOST_FAILURES = 2
"""In a row: a server that does not answer costs half a minute each time."""


def pdb_symbols(
    path: SymbolPath, identity: Identity, *, download: bool = False, report: Callable[[str], None] | None = None
) -> PdbSymbols:
    """Somebody who knows names of images from the symbol files that `path` leads to.

    Servers (and folders on other machines) are asked only with `download`. `report` is told each thing worth knowing,
    once: a file that is used, one that is refused and why. Raises UsageError for a download from nowhere.
    """
    if download:
        check_download(path)
    return PdbSymbols(path, identity, download=download, report=report)


def check_download(path: SymbolPath) -> None:
    """Raises UsageError where nothing that `path` names is on the network."""
    if not path.network:
        raise UsageError(
            "--download needs a symbol server or a folder on another machine, and none is named: name one in "
            "_NT_SYMBOL_PATH or --symbols, as srv*FOLDER*https://SERVER"
        )


class PdbSymbols:
    """A SymbolSource over symbol files. Each image is looked for once."""

    def __init__(
        self, path: SymbolPath, identity: Identity, *, download: bool, report: Callable[[str], None] | None
    ) -> None:
        self._path = path
        self._identity = identity
        self._download = download
        self._report = report
        self._held: dict[int, Pdb | None] = {}
        self._failures: dict[str, int] = {}
        self._reached: dict[Path, bool] = {}
        self._notes: dict[str, None] = {}

    @property
    def known_by(self) -> str:
        """Always "pdb"."""
        return "pdb"

    @property
    def notes(self) -> tuple[str, ...]:
        """Everything that was reported so far: files used, files refused and why, servers that failed."""
        return tuple(self._notes)

    async def nearest(self, module: Module, offset: int) -> tuple[str, int] | None:
        """The symbol that begins at or before `offset` from the image's base, and its own offset. None: not known.

        Never raises for what it cannot read.
        """
        pdb = await self._pdb(module)
        if pdb is None:
            return None
        try:
            return pdb.nearest(offset)
        except KdError as error:
            self._note(f"symbols of {module.name}: {error}")
        finally:
            for problem in pdb.shortcomings:
                self._note(f"symbols of {module.name}: {problem}")
        return None

    async def structure_offset(self, module: Module, type_name: str, field: str) -> int | None:
        """Where a field lies in a structure that the image's symbol file describes, in bytes. None: not known.

        Never raises for what it cannot read.
        """
        pdb = await self._pdb(module)
        try:
            return None if pdb is None else pdb.field_offset(type_name, field)
        except KdError as error:
            self._note(f"types of {module.name}: {error}")
            return None

    def _note(self, text: str) -> None:
        if text not in self._notes and len(self._notes) < _MOST_NOTES:
            self._notes[text] = None
            if self._report is not None:
                self._report(text)

    async def _pdb(self, module: Module) -> Pdb | None:
        if module.base not in self._held:
            found = await self._find(module)
            if sum(pdb is not None for pdb in self._held.values()) >= _MOST_HELD:
                self._held.clear()
            self._held[module.base] = found
        return self._held[module.base]

    async def _find(self, module: Module) -> Pdb | None:
        if not self._path:
            return None
        try:
            said = await self._identity(module)
        except KdError as error:
            self._note(f"symbols of {module.name}: what file has them cannot be read ({error})")
            return None
        wanted = image_identity(*said) if said is not None else None
        if said is not None and wanted is None:
            self._note(f"symbols of {module.name}: its debug directory names no usable file ({said[0][:80]!r})")
        if wanted is None:
            return None
        for part in self._path.parts:
            look = self._look(part, wanted) if isinstance(part, Folder) else self._ask(part, wanted)
            found = await look
            if found is not None:
                return found
        return None

    async def _look(self, folder: Folder, wanted: ImageIdentity) -> Pdb | None:
        if folder.share and not await self._reaches(folder.path):
            return None
        found = find_in(folder.path, wanted, self._note)
        if found is None:
            return None
        self._note(f"symbols from {found[1]}")
        return found[0]

    async def _reaches(self, share: Path) -> bool:
        """Whether a folder on another machine may be asked, and is there. A machine that is away keeps us waiting."""
        if share not in self._reached:
            self._reached[share] = False
            if not self._download:
                self._note(f"{share} is on another machine, which is asked only with --download")
            elif await trio.to_thread.run_sync(is_folder, share, abandon_on_cancel=True):
                self._reached[share] = True
            else:
                self._note(f"{share} is not there, or cannot be reached{_ELSEWHERE if os.name != 'nt' else ''}")
        return self._reached[share]

    async def _ask(self, server: Server, wanted: ImageIdentity) -> Pdb | None:
        if not self._download or self._failures.get(server.url, 0) >= _MOST_FAILURES:
            return None
        # Python's HTTP modules take longer to load than most commands to run, and hardly any downloads.
        from .download import address_of, download

        try:
            path = await download(server, wanted)
            self._failures[server.url] = 0
            if path is not None:
                self._note(f"symbols from {address_of(server, wanted)}, kept as {path}")
                return open_pdb(path, wanted)
        except KdError as error:
            self._failures[server.url] = self._failures.get(server.url, 0) + 1
            self._note(f"symbols of {wanted.name}: {error}")
            if self._failures[server.url] == _MOST_FAILURES:
                self._note(f"{server.url} failed {_MOST_FAILURES} times in a row, and is not asked again")
        return None
