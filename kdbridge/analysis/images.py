"""Loaded images in their own words: version, company, symbol file, and what says whether one is Microsoft's."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kdbridge.errors import MemoryFault
from kdbridge.source import Source
from kdbridge.target import Module, Target
from protocol.address import PAGE_SIZE, format_address
from protocol.errors import LayoutError
from protocol.pe.debug import CodeView
from protocol.pe.headers import PeHeaders
from protocol.pe.version import VersionInfo

from .image_memory import read_code_view, read_headers
from .model import ImageFact, Missing
from .names import Names
from .version_resource import read_version

__all__ = ["image_facts", "image_identity"]

_MICROSOFT = re.compile(r"microsoft\b", re.IGNORECASE)
_MOST_NAMED = 3
_HEADERS, _SYMBOL_FILE, _VERSION, _REST = "headers", "symbol file", "version", "rest of the version"
_LACKING = {
    _HEADERS: ("versions and symbol files of modules", "in {} the headers cannot be {}"),
    _SYMBOL_FILE: ("symbol files of modules", "in {} what names it cannot be {}"),
    _VERSION: ("versions of modules", "in {} the version resource cannot be {}"),
    _REST: ("versions of modules", "in {} the end of the version resource cannot be {}"),
}


@dataclass(frozen=True, slots=True)
class _Lack:
    """A part of one image that could not be had."""

    part: str
    image: Module
    problem: MemoryFault | LayoutError


async def image_facts(
    source: Source, target: Target, names: Names, only: Collection[Module] | None = None
) -> tuple[tuple[ImageFact, ...], tuple[Missing, ...]]:
    """One of each image, in their order, or of those that are asked for alone; and what could not be found out.

    Read of an image are its headers (0.5 KiB), a piece of its resources (0.7 KiB) and the name of its symbol file.
    Of one that was paged out nothing may be there. An image's path, or its signature's name, proves nothing.
    """
    wanted = target.modules if only is None else only
    lacks: list[_Lack] = []
    facts = tuple([await _fact(source, image, lacks) for image in wanted])
    return facts, _summed(lacks, len(facts))


async def image_identity(source: Source, image: Module) -> tuple[str, str, int] | None:
    """Name, GUID (32 hexadecimal digits, upper case) and age of an image's symbol file. None: the image names none.

    Raises MemoryFault and LayoutError where that cannot be read.
    """
    found = await read_code_view(source, image, await read_headers(source, image))
    return None if found is None else (found.pdb_name, found.guid, found.age)


async def _fact(source: Source, image: Module, lacks: list[_Lack]) -> ImageFact:
    try:
        headers = await read_headers(source, image)
    except (MemoryFault, LayoutError) as problem:
        lacks.append(_Lack(_HEADERS, image, problem))
        return ImageFact(image, because=_because("its headers", problem))
    pdb = await _code_view(source, image, headers, lacks)
    version, because = await _version(source, image, headers, lacks)
    strings = version.strings if version is not None else {}
    company = strings.get("CompanyName", "")
    microsoft: bool | None = None
    if company:
        microsoft = _MICROSOFT.match(company) is not None
        because = f"its version resource: {company}"
    elif version is not None:
        because = because or "its version resource names no company"
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


async def _code_view(source: Source, image: Module, headers: PeHeaders, lacks: list[_Lack]) -> CodeView | None:
    try:
        return await read_code_view(source, image, headers)
    except (MemoryFault, LayoutError) as problem:
        lacks.append(_Lack(_SYMBOL_FILE, image, problem))
        return None


async def _version(
    source: Source, image: Module, headers: PeHeaders, lacks: list[_Lack]
) -> tuple[VersionInfo | None, str]:
    """The version, and why there is none, or not all of it."""
    try:
        found, cut = await read_version(source, image, headers)
    except (MemoryFault, LayoutError) as problem:
        lacks.append(_Lack(_VERSION, image, problem))
        return None, _because("its version resource", problem)
    if cut is not None:
        lacks.append(_Lack(_REST, image, cut))
        return found, _because("the end of its version resource", cut)
    return found, "" if found is not None else "it has no version resource"


def _because(what: str, problem: MemoryFault | LayoutError) -> str:
    if isinstance(problem, MemoryFault):
        return f"{what} cannot be read: nothing at {format_address(problem.address)}"
    return f"{what} cannot be used: {problem}"


def _summed(lacks: Sequence[_Lack], count: int) -> tuple[Missing, ...]:
    """One of each part, however many images lack it."""
    found: list[Missing] = []
    for part, (what, words) in _LACKING.items():
        of_part = [one for one in lacks if one.part == part]
        unread = [one for one in of_part if isinstance(one.problem, MemoryFault)]
        unusable = [one for one in of_part if not isinstance(one.problem, MemoryFault)]
        if unread:
            found.append(Missing(what, words.format(_named(unread, count), "read"), _pages(unread)))
        if unusable:
            first = unusable[0]
            more = "" if len(unusable) == 1 else f"; the first, {first.image.name}"
            why = f"{words.format(_named(unusable, count), 'used')}{more}: {first.problem}"
            found.append(Missing(what, why))
    return tuple(found)


def _named(lacks: Sequence[_Lack], count: int) -> str:
    if len(lacks) <= _MOST_NAMED:
        return ", ".join(one.image.name for one in lacks)
    return f"all {count}" if len(lacks) == count else f"{len(lacks)} of {count}"


def _pages(lacks: Sequence[_Lack]) -> tuple[tuple[int, int], ...]:
    """The pages that could not be read, each once."""
    faults = [one.problem.address for one in lacks if isinstance(one.problem, MemoryFault)]
    return tuple((page, PAGE_SIZE) for page in dict.fromkeys(address & -PAGE_SIZE for address in faults))
