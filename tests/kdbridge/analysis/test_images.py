"""Images in memory in their own words: real ones through pefile's reader, and those half paged out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kdbridge.analysis.images import image_facts, image_identity
from kdbridge.analysis.model import ImageFact
from kdbridge.analysis.names import Names
from kdbridge.analysis.reading import ReadOnce
from kdbridge.errors import MemoryFault
from kdbridge.target import Module
from protocol.address import PAGE_SIZE
from protocol.errors import LayoutError
from tests.kdbridge.analysis.made_up import KERNEL, MadeUp, module, target_of
from tests.real_images import RealImage, images, version_strings

_BASE = 0xFFFFF800_10000000
_FAR = 0x1000000


def _machine() -> tuple[list[RealImage], list[Module], MadeUp]:
    """The real images in memory, one behind the other."""
    real = list(images())
    modules = [module(one.name, _BASE + _FAR * n, len(one.memory)) for n, one in enumerate(real)]
    return real, modules, MadeUp({at.base: one.memory for one, at in zip(real, modules, strict=True)})


async def _facts(source: MadeUp | ReadOnce, modules: Sequence[Module]) -> tuple[ImageFact, ...]:
    target = target_of(*modules)
    return (await image_facts(source, target, Names(modules, (), KERNEL)))[0]


async def test_real_images_are_as_pefile_reads_them() -> None:
    real, modules, source = _machine()
    found = await _facts(source, modules)
    assert [one.module for one in found] == modules
    for image, fact, at in zip(real, found, modules, strict=True):
        strings, fixed = version_strings(image.file), image.file.VS_FIXEDFILEINFO[0]
        assert (fact.company, fact.description) == (strings["CompanyName"], strings["FileDescription"])
        high, low = fixed.FileVersionMS, fixed.FileVersionLS
        assert fact.version == f"{high >> 16}.{high & 0xFFFF}.{low >> 16}.{low & 0xFFFF}"
        told = image.file.DIRECTORY_ENTRY_DEBUG[0].entry
        assert fact.pdb_name.encode() == told.PdbFileName.rstrip(b"\0")
        assert f"{fact.pdb_guid}{fact.pdb_age:X}" == told.Signature_String
        assert await image_identity(source, at) == (fact.pdb_name, fact.pdb_guid, fact.pdb_age)
        assert fact.microsoft is (fact.company == "Microsoft Corporation")
        assert fact.because == f"its version resource: {fact.company}"


async def test_little_is_read_of_an_image() -> None:
    real, modules, plain = _machine()
    for image, at in zip(real, modules, strict=True):
        source = ReadOnce(plain)
        assert await image_identity(source, at) is not None
        assert source.bytes_read < 0x300
        (fact,) = await _facts(source, [at])
        assert fact.company
        assert source.bytes_read < 0xA00, image.name


async def test_only_those_that_are_asked_for_are_read() -> None:
    _, modules, plain = _machine()
    source, names = ReadOnce(plain), Names(modules)
    found, _ = await image_facts(source, target_of(*modules), names, only=modules[1:2])
    assert [one.module for one in found] == modules[1:2]
    assert await image_facts(source, target_of(*modules), names, only=()) == ((), ())
    assert source.bytes_read < 0xA00


@pytest.mark.parametrize("name", ["t64.exe", "t32.exe", "simulated mydrv"])
async def test_whatever_page_is_gone_nothing_is_invented(name: str) -> None:
    image = next(one for one in images() if one.name == name)
    at = module("x.sys", _BASE, len(image.memory))
    (whole,) = await _facts(MadeUp({_BASE: image.memory}), [at])
    lost = set()
    for page in range(0, len(image.memory), PAGE_SIZE):
        pieces = {_BASE: image.memory[:page], _BASE + page + PAGE_SIZE: image.memory[page + PAGE_SIZE :]}
        (fact,) = await _facts(MadeUp({start: data for start, data in pieces.items() if data}), [at])
        if fact == whole:
            continue
        for field in ("version", "company", "description", "pdb_name", "pdb_guid"):
            assert getattr(fact, field) in (getattr(whole, field), "")
        if not fact.company:
            assert fact.microsoft is None
            assert "cannot be read: nothing at" in fact.because
            lost.add(fact.because.partition(" cannot")[0])
    assert lost == {"its headers", "its version resource"}


async def test_what_many_images_lack_is_told_once_with_the_pages() -> None:
    real, modules, _ = _machine()
    held = MadeUp({at.base: image.memory[:PAGE_SIZE] for image, at in zip(real, modules, strict=True)})
    target, names = target_of(*modules), Names(modules, (), KERNEL)
    count = len(modules)
    assert count > 3
    for source, whats in (
        (MadeUp({}), {"versions and symbol files of modules": f"in all {count} the headers cannot be read"}),
        (held, {
            "symbol files of modules": f"in all {count} what names it cannot be read",
            "versions of modules": f"in all {count} the version resource cannot be read",
        }),
    ):  # fmt: skip
        _, missing = await image_facts(source, target, names)
        assert {one.what: one.why for one in missing} == whats
        for one in missing:
            assert [at.base for at in modules] == [page - (page - _BASE) % _FAR for page, _ in one.ranges]
            assert all(page % PAGE_SIZE == 0 and size == PAGE_SIZE for page, size in one.ranges)
    _, (one,) = await image_facts(MadeUp({}), target, names, only=modules[:2])
    assert one.why == f"in {real[0].name}, {real[1].name} the headers cannot be read"
    _, (one,) = await image_facts(MadeUp({at.base: bytes(PAGE_SIZE) for at in modules}), target, names)
    assert one.why.startswith(f"in all {count} the headers cannot be used; the first, {real[0].name}: ")
    assert one.ranges == ()


async def test_a_version_that_is_cut_off_is_not_taken_for_a_whole_one() -> None:
    """The page ends behind the fixed part: that no company is named there says nothing."""
    image = next(one for one in images() if one.name == "simulated mydrv")
    company = image.memory.index("CompanyName".encode("utf-16-le"))
    start = -company % PAGE_SIZE
    at = module("x.sys", _BASE + start, len(image.memory))
    found, missing = await image_facts(
        MadeUp({at.base: image.memory[:company]}), target_of(at), Names((at,), (), KERNEL)
    )
    (fact,) = found
    assert (fact.company, fact.microsoft) == ("", None)
    assert "names no company" not in fact.because and "cannot be read" in fact.because
    assert "versions of modules" in [one.what for one in missing]


async def test_an_identity_that_cannot_be_read_is_told_from_one_that_is_not_there() -> None:
    image = next(one for one in images() if one.name == "simulated mydrv")
    at = module("x.sys", _BASE, len(image.memory))
    (told,) = image.file.DIRECTORY_ENTRY_DEBUG
    headers = image.memory[:PAGE_SIZE]
    for pieces in ({}, {_BASE: headers}):
        with pytest.raises(MemoryFault):
            await image_identity(MadeUp(pieces), at)
    where = image.memory.index(told.entry.__pack__()[:20])
    nameless = image.memory[:where] + b"NONE" + image.memory[where + 4 :]
    with pytest.raises(LayoutError):
        await image_identity(MadeUp({_BASE: nameless}), at)


async def test_a_path_or_a_name_proves_nothing() -> None:
    at = module("ntoskrnl.exe", _BASE, path="\\SystemRoot\\system32\\ntoskrnl.exe")
    (fact,) = await _facts(MadeUp({}), [at])
    assert fact.microsoft is None
    assert fact.because == "its headers cannot be read: nothing at fffff800`10000000"


@pytest.mark.parametrize(
    ("company", "microsoft"),
    [
        ("Microsoft Corporation", True),
        ("microsoft corp.", True),
        ("Microsofty Ltd.", False),
        ("Friends of Microsoft", False),
        ("Windows (R) Win 7 DDK provider", False),
        ("", None),
    ],
)
async def test_whose_it_is_its_company_says(company: str, microsoft: bool | None) -> None:
    image = next(one for one in images() if one.name == "simulated mydrv")
    old, size = "Contoso Laboratories".encode("utf-16-le"), 2 * len("Contoso Laboratories")
    new = company.encode("utf-16-le")
    memory = image.memory.replace(old, new[:size].ljust(size, b"\0"))
    (fact,) = await _facts(MadeUp({_BASE: memory}), [module("x.sys", _BASE, len(memory))])
    assert fact.company == company[: size // 2]
    assert fact.microsoft is microsoft


@pytest.mark.parametrize("size", [0, 1, 0x3F, 0x40, 0x200, 0x1000])
async def test_an_image_smaller_than_its_headers(size: int) -> None:
    image = next(one for one in images() if one.name == "t64.exe")
    (fact,) = await _facts(MadeUp({_BASE: image.memory}), [module("x.sys", _BASE, size)])
    assert fact.microsoft is None and fact.because
    (fact,) = await _facts(MadeUp({0: image.memory}), [module("x.sys", (1 << 64) - 0x800, 0x1000)])
    assert "lie outside" in fact.because
