"""Images in memory: versions, symbol files and exports, against pefile reading the same images' files."""

from __future__ import annotations

import bisect

import pefile
import pytest

from kdbridge.analysis.exports import Exports
from kdbridge.analysis.images import image_facts
from kdbridge.analysis.names import Names
from kdbridge.analysis.reading import ReadOnce
from kdbridge.discovery import discover
from simulator.image_files import image_file
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.kdbridge.analysis.made_up import MadeUp, module, target_of
from tests.kdbridge.simulated import SimulatedSource
from tests.protocol.pe.launchers import LAUNCHERS, laid_out, read_by_pefile
from tests.referee import engine_home

_BASE = 0xFFFFF800_30000000


@pytest.fixture(scope="module")
def kernel() -> SimulatedKernel:
    return build_kernel(KernelOptions(memory_size=16 << 20, processors=1))


def _strings(image: pefile.PE) -> dict[bytes, bytes]:
    (found,) = [one for one in image.FileInfo[0] if hasattr(one, "StringTable")]
    return dict(found.StringTable[0].entries)


def _signature(image: pefile.PE) -> str:
    return next(one.entry.Signature_String for one in image.DIRECTORY_ENTRY_DEBUG if hasattr(one.entry, "PdbFileName"))


async def test_every_module_of_a_machine(kernel: SimulatedKernel) -> None:
    source = ReadOnce(SimulatedSource(kernel))
    target = await discover(source)
    before = source.bytes_read
    found, missing = await image_facts(source, target, Names(target.modules, (), kernel.kernel_base))
    assert [one.module for one in found] == list(target.modules)
    assert missing == ()
    assert source.bytes_read - before <= 0xA00 * len(found)  # a whole section would be more
    third_parties = 0
    for fact, made in zip(found, kernel.modules, strict=True):
        theirs = pefile.PE(data=image_file(kernel, made.name))
        assert f"{fact.pdb_guid}{fact.pdb_age:X}" == _signature(theirs)
        if not hasattr(theirs, "FileInfo"):
            assert (fact.microsoft, fact.company, fact.because) == (None, "", "it has no version resource")
            continue
        strings = _strings(theirs)
        assert fact.company.encode() == strings[b"CompanyName"]
        assert fact.description.encode() == strings[b"FileDescription"]
        assert fact.version.encode() == strings[b"FileVersion"]
        assert fact.microsoft is (strings[b"CompanyName"] == b"Microsoft Corporation")
        assert fact.company in fact.because
        third_parties += not fact.microsoft
    assert third_parties


@pytest.mark.parametrize("name", LAUNCHERS)
async def test_real_images(name: str) -> None:
    data, theirs = laid_out(name), read_by_pefile(name)
    image = module(name, _BASE, len(data))
    ((found,), _) = await image_facts(MadeUp({_BASE: data}), target_of(image), Names((image,)))
    strings = _strings(theirs)
    assert found.company.encode() == strings.get(b"CompanyName", b"").strip()
    assert found.description.encode() == strings.get(b"FileDescription", b"").strip()
    assert f"{found.pdb_guid}{found.pdb_age:X}" == _signature(theirs)
    assert found.microsoft is (False if found.company else None)


async def test_nothing_is_said_of_what_is_not_there() -> None:
    data = laid_out("t64.exe")
    image = module("gone.sys", _BASE, len(data))
    resources = read_by_pefile("t64.exe").OPTIONAL_HEADER.DATA_DIRECTORY[2].VirtualAddress
    for memory, what in (({}, "its headers"), ({_BASE: data[:resources]}, "its version resource")):
        ((found,), (missing, *_)) = await image_facts(MadeUp(memory), target_of(image), Names((image,)))
        assert (found.microsoft, found.company, found.version) == (None, "", "")
        assert found.because.startswith(f"{what} cannot be read")
        assert missing.what.startswith("version") and missing.ranges


async def test_exports_of_a_machine(kernel: SimulatedKernel) -> None:
    source = ReadOnce(SimulatedSource(kernel))
    target = await discover(source)
    theirs = pefile.PE(data=image_file(kernel, kernel.modules[0].name))
    functions = {one.address: one.name.decode() for one in theirs.DIRECTORY_ENTRY_EXPORT.symbols}
    exports, nt = Exports(source), target.modules[0]
    places = sorted(functions)
    for place in places:
        for offset in (place, place + 3):
            nearest = places[bisect.bisect_right(places, offset) - 1]
            assert await exports.nearest(nt, offset) == (functions[nearest], nearest)
    assert await exports.nearest(nt, places[0] - 1) is None
    assert await exports.nearest(nt, theirs.sections[-1].VirtualAddress) is None  # another section


@pytest.mark.referee
@pytest.mark.parametrize("name", ["dbghelp.dll", "dbgeng.dll"])
async def test_images_by_microsoft(name: str) -> None:
    """The engine's own libraries: real version resources and exports by the hundred."""
    path = engine_home() / "engine" / name
    if not path.exists():
        pytest.skip(f"{path.name} is not here: the debugger engine is not installed")
    theirs = pefile.PE(str(path))
    size = theirs.OPTIONAL_HEADER.SizeOfImage
    data = bytes(theirs.get_memory_mapped_image()).ljust(size, b"\0")[:size]
    image, source = module(name, _BASE, size), ReadOnce(MadeUp({_BASE: data}))
    ((found,), _) = await image_facts(source, target_of(image), Names((image,)))
    fixed = theirs.VS_FIXEDFILEINFO[0]
    numbers = (fixed.FileVersionMS >> 16, fixed.FileVersionMS & 0xFFFF, fixed.FileVersionLS >> 16)
    assert found.version == ".".join(map(str, (*numbers, fixed.FileVersionLS & 0xFFFF)))
    assert (found.company, found.microsoft) == ("Microsoft Corporation", True)
    assert f"{found.pdb_guid}{found.pdb_age:X}" == _signature(theirs)
    assert source.bytes_read < 0xC00
    exports = Exports(source)
    table = theirs.DIRECTORY_ENTRY_EXPORT.symbols
    names: dict[int, set[str]] = {}
    for one in table:
        if one.forwarder is None and one.address:
            names.setdefault(one.address, set()).add(one.name.decode() if one.name else f"Ordinal{one.ordinal}")
    for place, called in names.items():
        nearest = await exports.nearest(image, place)
        assert nearest is not None
        assert nearest[0] in called
        assert nearest[1] == place
    assert len(names) >= 5
