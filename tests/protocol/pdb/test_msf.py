"""The container: streams come out as they were laid in, wherever their blocks lie; what cannot be is refused."""

from __future__ import annotations

import random
import struct

import pytest

from protocol.errors import PdbFormatError
from protocol.pdb.msf import SUPERBLOCK, Msf
from tests.protocol.pdb import built, witness
from tests.protocol.pdb.volatility import reader_of

SIZES = (0, 1, 4095, 4096, 4097, 40_000)


def _streams() -> list[bytes | None]:
    chance = random.Random(7)
    return [*(chance.randbytes(size) for size in SIZES), None]


def _open(data: bytes) -> Msf:
    return Msf(built.reader(data), len(data))


@pytest.mark.parametrize("block_size", [512, 1024, 4096, 65536])
def test_streams_come_out_as_they_were_laid_in(block_size: int) -> None:
    streams = _streams()
    msf = _open(built.msf_file(streams, block_size, seed=block_size))
    assert len(msf) == len(streams)
    for number, data in enumerate(streams[:-1]):
        assert data is not None
        stream = msf.stream(number, "x")
        assert stream.size == len(data)
        for offset, size in ((0, len(data)), (1, 5000), (4000, 200), (len(data), 1), (len(data) + 5, 5), (0, 1 << 40)):
            assert stream.read(offset, size) == data[offset : offset + size]
    for number in (len(streams) - 1, len(streams), -1):
        with pytest.raises(PdbFormatError, match=f"name: there is no stream {number} in this file"):
            msf.stream(number, "name")


def test_volatility_reads_the_same_streams() -> None:
    """Of a file that LLVM's linker wrote."""
    with reader_of(witness.PDB) as reader:
        for number, data in enumerate(built.streams_of(witness.PDB.read_bytes())):
            layer = reader.context.layers.get(f"{reader.pdb_layer_name}_stream{number}", None)
            if number and data:
                assert layer is not None
                assert layer.read(0, len(data)) == data


def test_a_directory_may_need_several_blocks_of_its_list() -> None:
    """512-byte blocks: 128 numbers fill one. 20,000 blocks need 157 blocks of directory, and two to list them."""
    data = random.Random(3).randbytes(20_000 * 512)
    assert _open(built.msf_file([b"", data], 512)).stream(1, "x").read(0, len(data)) == data


def _with(at: int, value: int) -> bytes:
    data = bytearray(built.msf_file(_streams()))
    struct.pack_into("<I", data, at, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "begins with 'Microsoft C/C[+][+] MSF 7.00', this one does not"),
        (b"MZ" + bytes(100), "begins with"),
        (built.MAGIC, "the file ends inside it"),
        (b"Microsoft C/C++ program database 2.00\r\n\x1aJG\0\0" + bytes(90), "PDB 2.00"),
        (b"Microsoft MSFZ Container\r\n\x1aALD\0\0" + bytes(90), "compressed symbol file"),
        (_with(0x20, 0), "blocks of 0 bytes"),
        (_with(0x20, 4095), "blocks of 4095 bytes"),
        (_with(0x20, 1 << 31), "blocks of 2147483648 bytes"),
        (_with(0x2C, 0), "a directory of 0x0 bytes"),
        (_with(0x2C, 0xFFFF_FFFF), "a directory of 0xffffffff bytes"),
        (_with(0x34, 0x7FFF_FFFF), "the directory lies in block 2147483647"),
        (_with(0x28, 2), "the directory lies in block"),
    ],
)
def test_what_cannot_be_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(PdbFormatError, match=problem):
        _open(data)


def _directory(words: list[int]) -> bytes:
    """A file of eight blocks whose directory says this."""
    directory = struct.pack(f"<{len(words)}I", *words)
    head = built.MAGIC + struct.pack("<6I", 512, 1, 8, len(directory), 0, 3)
    return head.ljust(3 * 512, b"\0") + struct.pack("<I", 4).ljust(512, b"\0") + directory.ljust(4 * 512, b"\0")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([9], "9 streams are not believable"),
        ([0xFFFF_FFFF, 1], "4294967295 streams"),
        ([1, 512], "ends before the blocks of all its streams were told"),
        ([1, 0xFFFF_FFFE, 5], "ends before the blocks"),
        ([1, 1, 8], "a block is named that is not in the file"),
        ([1, 9 * 512, *[5] * 9], "its streams are larger than the file"),
    ],
)
def test_a_directory_that_lies_is_refused(words: list[int], problem: str) -> None:
    assert _open(_directory([1, 512, 7])).stream(0, "x").size == 512
    with pytest.raises(PdbFormatError, match=problem):
        _open(_directory(words))


def test_a_file_that_shrinks_while_it_is_read_is_an_error() -> None:
    data = built.msf_file(_streams())
    there = bytearray(data)
    msf = Msf(lambda offset, size: bytes(there[offset : offset + size]), len(data))
    del there[4096:]
    with pytest.raises(PdbFormatError, match="name: the file ends inside block"):
        msf.stream(5, "name").read(0, 100)


def test_the_superblock_is_as_llvm_says() -> None:
    fields = SUPERBLOCK.decode(witness.PDB.read_bytes()[: SUPERBLOCK.size])
    assert f"Block Size: {fields['block_size']}\n" in witness.text()
    assert f"Number of blocks: {fields['num_blocks']}\n" in witness.text()
