"""kdbridge verify: what is whole passes, and what is not is named, with exit code 1."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from protocol.address import PAGE_SIZE
from tests.kdbridge.cli.calling import call
from tests.kdbridge.cli.conftest import Home

_PAGES = (16 << 20) // PAGE_SIZE


def _raw(home: Home, path: Path) -> Path:
    """The machine's memory as a raw image, holes as zeros."""
    image = home.kernel.image
    path.write_bytes(b"".join(image.read_page(pfn) or bytes(PAGE_SIZE) for pfn in range(_PAGES)))
    return path


def _flipped(dump: Path, out: Path, offset: int) -> Path:
    data = bytearray(dump.read_bytes())
    data[offset] ^= 1
    out.write_bytes(data)
    return out


def test_what_is_whole_passes(home: Home, tmp_path: Path) -> None:
    pages = home.kernel.image.runs.page_count
    ended = call("verify", home.complete)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{home.complete}: type 1 (FULL), {pages} pages\ngood\n"
    raw = _raw(home, tmp_path / "raw")
    for witness, laid_over in ((home.snapshot, 2), (raw, 2), (home.complete, 0), (home.small, 0)):
        ended = call("verify", home.small, "--against", witness, "--json")
        assert ended.code == 0, ended.out
        document = ended.document
        assert {**document, "overlaid": None} == {
            "good": True, "dump_type": 6, "pages": document["pages"], "pieces": None, "compared": document["pages"],
            "compared_bytes": document["pages"] * PAGE_SIZE, "differing": [], "overlaid": None, "problems": [],
        }  # fmt: skip
        # Of two processors, the contexts that lie in memory are older than those that the debugger gave.
        assert document["overlaid"] == laid_over


def test_a_small_dump_is_compared_by_its_pieces(home: Home, tmp_path: Path) -> None:
    small = tmp_path / "small.dmp"
    assert call("convert", home.complete, small, "--kind", "small").code == 0
    for witness in (home.snapshot, home.complete, home.small):
        document = call("verify", small, "--against", witness, "--json").document
        assert (document["good"], document["pages"], document["compared"]) == (True, 0, 0), witness
        assert document["compared_bytes"] > 100 << 10 and document["pieces"] > 10
    stack = home.kernel.processors[home.kernel.stopped_processor].context_values["rsp"]
    data = small.read_bytes()
    table, count = struct.unpack_from("<II", data, 0x2078)  # dump-formats 4.2
    blocks = [struct.unpack_from("<QII", data, table + 16 * number) for number in range(count)]
    address, offset, _ = next(one for one in blocks if one[0] <= stack < one[0] + one[2])
    wrong = _flipped(small, tmp_path / "wrong.dmp", offset + stack - address)
    ended = call("verify", wrong, "--against", home.complete)
    assert ended.code == 1
    assert ended.out.endswith(f"\n  PROBLEM the byte at {stack:#x} is not the one that {home.complete} has\nnot good\n")
    ended = call("verify", small, "--against", _raw(home, tmp_path / "raw"))
    assert (ended.code, ended.out) == (2, "")
    assert ended.last == (
        f"kdbridge: {tmp_path}/raw cannot be read by virtual address, as the small dump {small} must be:"
        " give the Snapshot or the dump that it was made of"
    )
    ended = call("verify", home.complete, "--against", small)
    assert (ended.code, ended.out) == (2, "")
    assert ended.last == (
        f"kdbridge: {small} is a small dump, which has no pages: check that one, --against {home.complete}"
    )


def test_one_bit_is_found_by_whoever_has_another_copy(home: Home, tmp_path: Path) -> None:
    # The last page of the file is the last of memory: no registers lie there.
    wrong = _flipped(home.complete, tmp_path / "wrong.dmp", home.complete.stat().st_size - 100)
    assert call("verify", wrong).code == 0
    for witness in (home.snapshot, _raw(home, tmp_path / "raw"), home.complete):
        ended = call("verify", wrong, "--against", witness)
        assert (ended.code, ended.err) == (1, "")
        lines = ended.out.splitlines()
        assert lines[-2:] == [f"  PROBLEM frame {_PAGES - 1:#x} differs", "not good"]
        assert call("verify", wrong, "--against", witness, "--json").document["differing"] == [hex(_PAGES - 1)]


def test_of_many_differences_the_first_are_named(home: Home, tmp_path: Path) -> None:
    data = bytearray(home.complete.read_bytes())
    for page in range(1, 71):
        data[(1 - page) * PAGE_SIZE - 1] ^= 1  # the last byte: few things that are found by a pointer reach so far
    wrong = tmp_path / "wrong.dmp"
    wrong.write_bytes(data)
    lines = call("verify", wrong, "--against", home.complete).out.splitlines()
    assert lines[2:-2] == [f"  PROBLEM frame {pfn:#x} differs" for pfn in range(_PAGES - 70, _PAGES - 6)]
    assert lines[-2:] == ["  PROBLEM only the first 64 frames that differ are listed; there may be more", "not good"]


def test_a_page_that_the_witness_lacks_is_told(home: Home) -> None:
    more = home.kernel.image.runs.page_count - call("verify", home.small, "--json").document["pages"]
    ended = call("verify", home.complete, "--against", home.small)
    assert ended.code == 1
    assert f"  PROBLEM {more} pages of the dump are not in {home.small}\n" in ended.out


def test_a_file_that_was_cut_off_or_has_more_than_it_should_is_told(home: Home, tmp_path: Path) -> None:
    data = home.small.read_bytes()
    odd = tmp_path / "odd.dmp"
    odd.write_bytes(data[:-5])
    ended = call("verify", odd)
    assert ended.code == 1 and "  PROBLEM the file was cut off: " in ended.out and ended.out.endswith("not good\n")
    odd.write_bytes(data + b"more!")
    ended = call("verify", odd)
    assert ended.code == 1 and "  PROBLEM 5 bytes behind the last page belong to nothing\n" in ended.out


def test_a_wrong_count_in_the_bitmap_is_told(home: Home, tmp_path: Path) -> None:
    # The bits begin behind a header of 0x38 bytes at 0x2000 (dump-formats 2.3).
    data = home.small.read_bytes()
    at = next(at for at in range(0x2038, 0x2238) if data[at] == 0)
    ended = call("verify", _flipped(home.small, tmp_path / "odd.dmp", at))
    pages = call("verify", home.small, "--json").document["pages"]
    assert ended.code == 1
    assert (
        f"  PROBLEM {pages + 1} bits of the bitmap are set, its header says {pages}: bits are believed\n" in ended.out
    )


@pytest.mark.parametrize("data", [b"", b"hello, this is a text\n", bytes(0x3000), b"PAGEDU64"])
def test_what_is_no_dump_is_a_file_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    ended = call("verify", path)
    assert (ended.code, ended.out) == (5, "")
    assert ended.last.startswith(f"kdbridge: {path} is not a dump that can be read: at file offset ")


def test_folders_and_missing_files_are_told_by_name(home: Home, tmp_path: Path) -> None:
    ended = call("verify", home.snapshot)
    assert ended.code == 5
    assert ended.last == (
        f"kdbridge: {home.snapshot} is a folder; verify checks a dump file (`kdbridge convert` makes one of a Snapshot)"
    )
    ended = call("verify", tmp_path / "none")
    assert (ended.code, ended.last) == (5, f"kdbridge: {tmp_path}/none cannot be read: No such file or directory")
    ended = call("verify", home.small, "--against", tmp_path / "none")
    assert (ended.code, ended.last) == (5, f"kdbridge: {tmp_path}/none cannot be read: No such file or directory")
    ended = call("verify", home.small, "--against", tmp_path)
    assert ended.code == 5 and ended.last.startswith(f"kdbridge: {tmp_path} is not a Snapshot: ")


@pytest.fixture
def shut_away(home: Home, tmp_path: Path) -> None:
    (tmp_path / "open.dmp").write_bytes(home.small.read_bytes())
    (tmp_path / "secret").write_bytes(b"PAGE")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "shut").mkdir(mode=0)


def test_what_may_not_be_read_is_told_by_name(shut_away: None, nobody: None) -> None:
    ended = call("verify", "secret")
    assert (ended.code, ended.last) == (5, "kdbridge: secret cannot be read: Permission denied")
    ended = call("verify", "open.dmp", "--against", "secret")
    assert (ended.code, ended.last) == (5, "kdbridge: secret cannot be read: Permission denied")
    ended = call("verify", "shut/x.dmp")
    assert (ended.code, ended.last) == (5, "kdbridge: shut/x.dmp: Permission denied")
