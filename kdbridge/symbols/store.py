"""Symbol files in folders: where each may lie, and the proof that it is the image's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdbridge.errors import FileError
from kdbridge.positioned import read_at
from protocol.errors import KdError
from protocol.pdb import Pdb

__all__ = ["ImageIdentity", "find_in", "image_identity", "is_folder", "open_pdb", "stored_at"]

_LONGEST_NAME = 255
_NOT_IN_A_NAME = frozenset('<>:"/\\|?*')
_IMAGE_KINDS = ("exe", "dll", "sys")
_LARGEST_POINTER = 4096
_LARGEST_FILE = 1 << 32


@dataclass(frozen=True, slots=True)
class ImageIdentity:
    """What an image's debug directory (RSDS) names as its symbol file."""

    name: str
    """The file's name, without folders."""
    guid: str
    """32 hexadecimal digits, upper case."""
    age: int

    @property
    def key(self) -> str:
        """The name of the folder that a symbol store has it in."""
        return f"{self.guid}{self.age:X}"


def image_identity(name: str, guid: str, age: int) -> ImageIdentity | None:
    """From what an image says, whose bytes nobody vouches for: None where it names no file, or no GUID."""
    file = name.replace("/", "\\").rpartition("\\")[2]
    usable = 0 < len(file) <= _LONGEST_NAME and file.strip(". ") and file.isprintable()
    if not usable or _NOT_IN_A_NAME & set(file):
        return None
    guid = guid.upper()
    if len(guid) != 32 or set(guid) - set("0123456789ABCDEF") or not 0 <= age < 1 << 32:
        return None
    return ImageIdentity(file, guid, age)


def stored_at(store: Path, wanted: ImageIdentity) -> Path:
    """Where a symbol store keeps a file: STORE/name.pdb/GUIDAGE/name.pdb."""
    return store / wanted.name / wanted.key / wanted.name


def open_pdb(path: Path, wanted: ImageIdentity) -> Pdb:
    """The file, if it is the image's own. Raises FileError where it is not, or cannot be read as a PDB.

    The file is opened for each read, and held open by nobody.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise FileError(f"{path} is too large for a symbol file ({size:#x} bytes)")
        pdb = Pdb(_reader(path), size)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from None
    except KdError as error:
        raise FileError(f"{path} cannot be used: {error}") from None
    if (pdb.identity.guid, pdb.identity.age) != (wanted.guid, wanted.age):
        raise FileError(f"{path} is of another build: it is {pdb.identity.key}, the image's own is {wanted.key}")
    return pdb


def find_in(folder: Path, wanted: ImageIdentity, refused: Callable[[str], None]) -> tuple[Pdb, Path] | None:
    """The image's symbol file in a folder: a store of one or two tiers, or a plain one. None where it is not there.

    `refused` is told of files that are there and are not used, and why.
    """
    for place in _places(folder, wanted):
        for path in (place, _pointed_to(place.with_name("file.ptr"), refused) if place.parent != folder else None):
            if path is not None and _is_file(path):
                try:
                    return open_pdb(path, wanted), path
                except FileError as error:
                    refused(str(error))
        packed = place.with_name(place.name[:-1] + "_")
        if _is_file(packed):
            refused(f"{packed} is compressed (CAB), which is not read: unpack it beside itself (expand, cabextract)")
    return None


def _places(folder: Path, wanted: ImageIdentity) -> Iterator[Path]:
    """Where it may lie. Other systems tell upper from lower case, and Windows wrote what it liked."""
    names = dict.fromkeys((wanted.name, wanted.name.lower()))
    two_tiers = _is_file(folder / "index2.txt")
    for name in names:
        for key in (wanted.key, wanted.key.lower()):
            if two_tiers:
                yield folder / name[:2] / name / key / name
            yield folder / name / key / name
    # In a plain folder debuggers also look below the kind of the image, and below "symbols".
    for name in names:
        yield folder / name
        for kind in _IMAGE_KINDS:
            yield folder / kind / name
            yield folder / "symbols" / kind / name


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, as far as this system can tell."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # what no system calls a path is none
        return False


def _pointed_to(pointer: Path, refused: Callable[[str], None]) -> Path | None:
    """The file that a store's file.ptr names: `PATH:` and a path. One that lies on another machine is not followed."""
    if not _is_file(pointer):
        return None
    try:
        with pointer.open("rb") as file:
            text = file.read(_LARGEST_POINTER).decode("utf-8", "replace").strip().strip("\0")
    except OSError as error:
        refused(f"{pointer} cannot be read: {error.strerror or error}")
        return None
    kind, _, target = text.partition(":")
    target = target.strip()
    if kind.upper() != "PATH" or not target or "\0" in target:
        refused(f"{pointer} points to no file: {text[:80]!r}")
        return None
    if target.startswith(("\\\\", "//")):
        refused(f"{pointer} points to another machine, which is not asked: {target[:80]}")
        return None
    return pointer.parent / target


def _reader(path: Path) -> Callable[[int, int], bytes]:
    def read(offset: int, size: int) -> bytes:
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
            try:
                return read_at(fd, size, offset)
            finally:
                os.close(fd)
        except (OSError, OverflowError) as error:
            raise FileError(f"{path} cannot be read: {error}") from None

    return read
