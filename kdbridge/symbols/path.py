"""What `_NT_SYMBOL_PATH` says: folders and servers, in the order in which they are asked.

As Microsoft documents it ("Symbol path for Windows debuggers"): parts separated by `;`, each a folder, `cache*FOLDER`,
`srv*[FOLDER*…]SERVER` or `symsrv*DLL*[FOLDER*…]SERVER`. Two asterisks in a row stand for the default folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from kdbridge.errors import UsageError

__all__ = ["Folder", "Server", "SymbolPath", "symbol_path"]

_MOST_PARTS = 256
_SCHEMES = ("http://", "https://")
_VARIABLES = ("_NT_ALT_SYMBOL_PATH", "_NT_SYMBOL_PATH")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is looked in: a symbol store, or a plain one."""

    path: Path
    share: bool = False
    r"""It lies on another machine (\\server\share): looked in only when the network may be used."""


@dataclass(frozen=True, slots=True)
class Server:
    """A symbol server, and the folders that may keep what it gives, in the order in which they are tried."""

    url: str
    keep_in: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class SymbolPath:
    """Where symbol files may be, in the order in which it was written."""

    parts: tuple[Folder | Server, ...] = ()

    @property
    def network(self) -> tuple[Folder | Server, ...]:
        """Those parts that are asked only when the network may be used: servers, and folders on other machines."""
        return tuple(part for part in self.parts if isinstance(part, Server) or part.share)

    def __bool__(self) -> bool:
        return bool(self.parts)


def symbol_path(
    text: str | None, environment: Mapping[str, str], report: Callable[[str], None] | None = None
) -> SymbolPath:
    """The path that `text` writes; None: the one that `_NT_ALT_SYMBOL_PATH` and `_NT_SYMBOL_PATH` write.

    Raises UsageError for parts of `text` that are none. The environment is written for other programs: parts of it
    that are not understood are passed over, and `report` is told of each.
    """
    default = _default_folder(environment)
    parts: list[Folder | Server] = []
    caches: list[Path] = []
    tell = report or (lambda text: None)
    for count, (part, variable) in enumerate(_written(text, environment), 1):
        try:
            found = _part(part, default, caches)
        except UsageError as error:
            if not variable:
                raise
            tell(f"{error}; this part of {variable} is passed over")
            found = []
        if max(count, len(parts) + len(found)) > _MOST_PARTS:
            problem = f"a symbol path of more than {_MOST_PARTS} parts is not believable"
            if not variable:
                raise UsageError(problem)
            tell(f"{problem}; what {variable} names beyond them is passed over")
            break
        parts += found
    return SymbolPath(tuple(dict.fromkeys(parts)))


def _written(text: str | None, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each part, and the name of the variable that it comes from; that is empty for parts of `text`."""
    sources = [(environment.get(name, ""), name) for name in _VARIABLES] if text is None else [(text, "")]
    for path, variable in sources:
        for piece in path.split(";"):
            if part := piece.strip().strip('"'):
                yield part, variable


def _part(part: str, default: Path, caches: list[Path]) -> list[Folder | Server]:
    """What one part names. A cache is also remembered in `caches`: it keeps what parts to its right bring."""
    head, star, rest = part.partition("*")
    kind = head.lower()
    if not star and not _is_server(part):
        return [Folder(_path(part), _is_share(part))]
    if not star:
        kind, rest = "srv", part
    if kind == "cache":
        name, _, _ = rest.partition("*")
        folder = _path(name) if name else default
        caches.append(folder)
        return [Folder(folder, _is_share(name))]
    if kind == "symsrv":
        _, _, rest = rest.partition("*")
    elif kind != "srv":
        raise UsageError(f"{part!r} in the symbol path: parts with an asterisk begin with srv*, symsrv* or cache*")
    found: list[Folder | Server] = []
    keep = list(caches)
    names = rest.split("*")
    for place, name in enumerate(names):
        if name and _is_server(name):
            if not keep:
                found.append(Folder(default))
            found.append(Server(name.rstrip("/"), tuple(keep) or (default,)))
        elif name or place < len(names) - 1 or not found:
            folder = _path(name) if name else default
            found.append(Folder(folder, _is_share(name)))
            keep.append(folder)
        # else srv*FOLDER* : debuggers ask Microsoft's server here, we ask nobody who was not named.
    return found


def _is_server(name: str) -> bool:
    if name.lower().startswith(_SCHEMES):
        return True
    if "://" in name:
        raise UsageError(f"{name!r} in the symbol path: servers are asked over http:// or https://")
    return False


def _is_share(name: str) -> bool:
    return name.startswith(("\\\\", "//"))


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # nobody's home
        return Path(name)


def _default_folder(environment: Mapping[str, str]) -> Path:
    """Where debuggers keep symbols if no folder is named: `sym` in their home folder; elsewhere, in our cache."""
    if home := environment.get("DBGHELP_HOMEDIR"):
        return Path(home) / "sym"
    if os.name == "nt" and (data := environment.get("ProgramData")):
        return Path(data) / "dbg" / "sym"
    return platformdirs.user_cache_path("kdbridge", appauthor=False) / "symbols"
