"""Symbol files from a symbol server, by HTTP: into a temporary file, proven, and only then into the store."""

from __future__ import annotations

import contextlib
import http.client
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import trio

from kdbridge.errors import FileError, TransportError

from .path import Server
from .store import ImageIdentity, open_pdb, stored_at

__all__ = ["MOST_BYTES", "address_of", "download"]

MOST_BYTES = 1 << 30
"""The largest file that is fetched."""

_SILENCE = 30.0
_LONGEST = 900.0
"""Seconds: without a byte, and in all."""
_PIECE = 1 << 16
_NOT_THERE = (404, 410)


def address_of(server: Server, wanted: ImageIdentity) -> str:
    """The URL of a file: SERVER/name.pdb/GUIDAGE/name.pdb."""
    name = urllib.parse.quote(wanted.name, safe="")
    return f"{server.url}/{name}/{wanted.key}/{name}"


async def download(
    server: Server, wanted: ImageIdentity, *, most_bytes: int = MOST_BYTES, silence: float = _SILENCE
) -> Path | None:
    """Fetch a file into the first folder that takes it, and tell where it is. None: the server does not have it.

    Raises TransportError where the server cannot be asked or breaks off, FileError where no folder takes the file or
    it is not the image's. What was begun and not proven is removed.
    """
    folder = _writable(server, wanted)
    given_up = False
    try:
        with trio.fail_after(_LONGEST):
            return await trio.to_thread.run_sync(
                lambda: _fetch(server, wanted, folder, most_bytes, silence, lambda: given_up), abandon_on_cancel=True
            )
    except trio.TooSlowError:
        raise TransportError(f"{address_of(server, wanted)} did not come whole within {_LONGEST:.0f} s") from None
    finally:
        given_up = True


def _writable(server: Server, wanted: ImageIdentity) -> Path:
    """The folder for this file in the first store that can be written to."""
    problems = []
    for store in server.keep_in:
        folder = stored_at(store, wanted).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
            problems.append(f"{folder} cannot be written to")
        except (OSError, ValueError) as error:
            problems.append(f"{folder}: {error}")
    raise FileError(f"no folder takes what {server.url} gives: {'; '.join(problems) or 'none was named'}")


def _fetch(
    server: Server, wanted: ImageIdentity, folder: Path, most: int, silence: float, given_up: Callable[[], bool]
) -> Path | None:
    """Runs in a thread of its own."""
    address = address_of(server, wanted)
    temporary: str | None = None
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "kdbridge"})
        with _opener().open(request, timeout=silence) as answer:
            handle, temporary = tempfile.mkstemp(prefix="kdbridge-", suffix=".part", dir=folder)
            with os.fdopen(handle, "wb") as file:
                _copy(answer, file, address, most, given_up)
        path = folder / wanted.name
        open_pdb(Path(temporary), wanted)
        Path(temporary).chmod(0o644)  # mkstemp's is for its owner alone, a store is for everybody
        Path(temporary).replace(path)
        temporary = None
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _NOT_THERE:
            return None
        raise TransportError(f"{address}: the server answered {error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = str(getattr(error, "reason", "")) or str(error) or type(error).__name__
        raise TransportError(f"{address}: {reason}") from None
    except OSError as error:
        raise FileError(f"{folder}: {error.strerror or error}") from None
    else:
        return path
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _copy(
    answer: http.client.HTTPResponse, file: BinaryIO, address: str, most: int, given_up: Callable[[], bool]
) -> None:
    said = answer.headers.get("Content-Length", "")
    if said.isdecimal() and int(said) > most:
        raise TransportError(f"{address} is said to be {said} bytes long; {most} are the most that are fetched")
    done = 0
    while piece := _piece(answer, address):
        done += len(piece)
        if done > most:
            raise TransportError(f"{address} is longer than {most} bytes, the most that are fetched")
        if given_up():
            raise TransportError(f"{address} was given up")
        file.write(piece)
    if said.isdecimal() and done < int(said):
        raise TransportError(f"{address}: the connection ended after {done} of {said} bytes")


def _piece(answer: http.client.HTTPResponse, address: str) -> bytes:
    """What comes next. Errors of the connection, TLS's too, are told from those of the disk."""
    try:
        return answer.read(_PIECE)
    except OSError as error:
        raise TransportError(f"{address}: {str(error) or type(error).__name__}") from None


def _opener() -> urllib.request.OpenerDirector:
    """One that knows HTTP and HTTPS only, wherever a server sends it on to; through a proxy if the system has one."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
