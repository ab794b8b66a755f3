"""Loaded images in their own words: version, company, symbol file, and what says whether one is Microsoft's."""

from __future__ import annotations

import re
from collections.abc import Collection

from kdbridge.errors import MemoryFault
from kdbridge.source import Source
from kdbridge.target import Module, Target
from protocol.address import format_address
from protocol.errors import LayoutError
from protocol.pe.debug import CodeView
from protocol.pe.headers import PeHeaders
from protocol.pe.version import VersionInfo

from .image_memory import read_code_view, read_headers
from .model import ImageFact
from .names import Names
from .version_resource import read_version

__all__ = ["image_facts", "image_identity"]

_MICROSOFT = re.compile(r"microsoft\b", re.IGNORECASE)


async def image_facts(
    source: Source, target: Target, names: Names, only: Collection[Module] | None = None
) -> tuple[ImageFact, ...]:
    """One of each image, in their order; or of those that are asked for alone.

    Read of an image are its headers (0.5 KiB), a piece of its resources (0.7 KiB) and the name of its symbol file.
    Of one that was paged out nothing may be there. An image's path, or its signature's name, proves nothing.
    """
    wanted = target.modules if only is None else only
    return tuple([await _fact(source, image) for image in wanted])


async def image_identity(source: Source, image: Module) -> tuple[str, str, int] | None:
    """Name, GUID (32 hexadecimal digits, upper case) and age of an image's symbol file. None: it cannot be told."""
    try:
        found = await read_code_view(source, image, await read_headers(source, image))
    except (MemoryFault, LayoutError):
        return None
    return None if found is None else (found.pdb_name, found.guid, found.age)


async def _fact(source: Source, image: Module) -> ImageFact:
    try:
        headers = await read_headers(source, image)
    except (MemoryFault, LayoutError) as problem:
        return ImageFact(image, because=_because("its headers", problem))
    pdb = await _code_view(source, image, headers)
    version, because = await _version(source, image, headers)
    strings = version.strings if version is not None else {}
    company = strings.get("CompanyName", "")
    microsoft: bool | None = None
    if company:
        microsoft = _MICROSOFT.match(company) is not None
        because = f"its version resource: {company}"
    elif version is not None:
        because = "its version resource names no company"
    return ImageFact(
        image,
        version=(version.file_version or strings.get("FileVersion", "")) if version is not None else "",
        company=company,
        description=strings.get("FileDescription", ""),
        pdb_name=pdb.pdb_name if pdb is not None else "",
        pdb_guid=pdb.guid if pdb is not None else "",
        pdb_age=pdb.age if pdb is not None else 0,
        microsoft=microsoft,
        because=because,
    )


async def _code_view(source: Source, image: Module, headers: PeHeaders) -> CodeView | None:
    try:
        return await read_code_view(source, image, headers)
    except (MemoryFault, LayoutError):
        return None


async def _version(source: Source, image: Module, headers: PeHeaders) -> tuple[VersionInfo | None, str]:
    """The version, or why there is none."""
    try:
        found = await read_version(source, image, headers)
    except (MemoryFault, LayoutError) as problem:
        return None, _because("its version resource", problem)
    return found, "" if found is not None else "it has no version resource"


def _because(what: str, problem: MemoryFault | LayoutError) -> str:
    if isinstance(problem, MemoryFault):
        return f"{what} cannot be read: nothing at {format_address(problem.address)}"
    return f"{what} cannot be used: {problem}"
