"""The DBI stream: fields against what LLVM says of a file, and lists that end where they should not."""

from __future__ import annotations

import pytest

from protocol.errors import PdbFormatError
from protocol.pdb.dbi import ModuleSymbols, module_symbols, read_dbi
from protocol.pdb.msf import Msf
from tests.protocol.pdb import built, witness


def _open(data: bytes) -> Msf:
    return Msf(built.reader(data), len(data))


def test_it_finds_what_llvm_finds() -> None:
    msf = _open(witness.PDB.read_bytes())
    dbi = read_dbi(msf)
    assert dbi.machine == 0x8664
    assert f"Age: {dbi.age}\n" in witness.text()
    assert dbi.original_section_headers is dbi.omap_from_source is None
    assert dbi.section_headers is not None and dbi.symbol_records is not None
    # 40 bytes are a section's header.
    assert msf.stream(dbi.section_headers, "x").size == 40 * len(witness.sections())
    symbols = list(module_symbols(msf, dbi))
    assert any(b"Evaporate" in msf.stream(module.stream, "x").read(0, module.size) for module in symbols)


def _file(dbi: bytes | None) -> bytes:
    return built.msf_file([b"", built.info_stream(bytes(16)), b"", dbi])


def test_an_optional_header_may_be_short_or_missing() -> None:
    whole = built.dbi_stream(6, {4: 4, 5: 5, 10: 10})
    assert read_dbi(_open(_file(whole))).original_section_headers == 10
    cut = whole[:-2]
    assert read_dbi(_open(_file(cut))).original_section_headers is None
    assert read_dbi(_open(_file(cut))).section_headers == 5
    assert read_dbi(_open(_file(whole[:64]))).section_headers is None


def test_what_is_none_is_refused() -> None:
    for data, problem in (
        (b"", "it ends inside its header"),
        (bytes(64), "of a version before 1999"),
        (None, "no stream 3"),
    ):
        with pytest.raises(PdbFormatError, match=problem):
            read_dbi(_open(_file(data)))


def _module(stream: int, size: int, names: bytes) -> bytes:
    head = bytes(34) + stream.to_bytes(2, "little") + size.to_bytes(4, "little") + bytes(24)
    return head + names + b"\0" * (-len(names) % 4)


def test_modules_are_told_by_their_streams() -> None:
    modules = _module(7, 100, b"a.obj\0\0") + _module(0xFFFF, 0, b"* Linker *\0x\0") + _module(8, 4, b"\0\0")
    modules += _module(9, 5, b"abc\0defgh\0")
    msf = _open(_file(built.dbi_stream(6, {}, modules=modules)))
    assert list(module_symbols(msf, read_dbi(msf))) == [ModuleSymbols(7, 100), ModuleSymbols(9, 5)]


def test_a_list_of_modules_that_lies_is_refused() -> None:
    msf = _open(_file(built.dbi_stream(6, {}, modules=bytes(34) + b"\7" * 30 + b"name without end")))
    with pytest.raises(PdbFormatError, match="list of modules: it ends inside a name"):
        list(module_symbols(msf, read_dbi(msf)))
    stream = bytearray(built.dbi_stream(6, {}))
    stream[24:28] = b"\xff\xff\xff\x7f"
    msf = _open(_file(bytes(stream)))
    with pytest.raises(PdbFormatError, match="list of modules: 0x7fffffff bytes are not believable"):
        list(module_symbols(msf, read_dbi(msf)))
