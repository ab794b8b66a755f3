"""kdbridge memory: bytes of the machine, by any name of an address, on the screen and into files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protocol.address import PAGE_SIZE, format_address
from simulator.kernel import SimulatedKernel
from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.cli.conftest import Home
from tests.kdbridge.cli.limits import no_file_longer_than

_LINE = re.compile(r"^([0-9a-f]{8}`[0-9a-f]{8})  (.{23})-(.{23})  (.{1,16})$", re.MULTILINE)


def _bytes(text: str) -> bytes:
    """What a hex dump says."""
    return bytes.fromhex("".join(left + right for _, left, right, _ in _LINE.findall(text)).replace(" ", ""))


def _before_a_hole(kernel: SimulatedKernel) -> int:
    """A page of an image, behind which a page is that is not there."""
    pages = (page for module in kernel.modules for page in range(module.base, module.base + module.size * 2, PAGE_SIZE))
    return next(
        page
        for page in pages
        if any(kernel.read_virtual(page, PAGE_SIZE) or b"") and kernel.read_virtual(page + PAGE_SIZE, 1) is None
    )


def test_target_dump_and_snapshot_give_the_bytes_of_the_machine(home: Home) -> None:
    kernel = home.kernel
    address = kernel.kernel_base + 0x1078
    truth = kernel.read_virtual(address, 0x1003)
    assert truth is not None and len(set(truth)) > 50
    answers = [
        call("memory", source, format_address(address), "1003")
        for source in (sim(), home.complete, home.small, home.snapshot)
    ]
    assert [answer.code for answer in answers] == [0, 0, 0, 0]
    assert len({answer.out for answer in answers}) == 1
    text = answers[0].out
    assert _bytes(text) == truth
    assert [line[0] for line in _LINE.findall(text)] == [
        format_address(at) for at in range(address, address + 0x1003, 16)
    ]
    assert "".join(line[3] for line in _LINE.findall(text)) == "".join(
        chr(byte) if 32 <= byte < 127 else "." for byte in truth
    )
    assert list(answers[0].machine.target.machine.touched) == []


@pytest.mark.parametrize("write", ["{0:x}", "0x{0:x}", "{0:X}", "{1}", "0n{0}", "0x{1}"])
def test_an_address_may_be_written_in_every_way_that_windbg_knows(home: Home, write: str) -> None:
    at = home.kernel.kernel_base + 0x1000
    ended = call("memory", home.small, write.format(at, format_address(at)), "0n32")
    assert ended.code == 0
    assert _bytes(ended.out) == home.kernel.read_virtual(at, 32)


def test_physical_memory_is_that_of_the_frames(home: Home) -> None:
    kernel = home.kernel
    root = kernel.directory_table_base
    truth = kernel.image.read(root, 0x1000)
    assert truth is not None and any(truth)
    for source in (sim(), home.complete, home.small, home.snapshot):
        ended = call("memory", source, f"{root:x}", "1000", "--physical")
        assert ended.code == 0 and _bytes(ended.out) == truth


def test_what_cannot_be_read_is_marked(home: Home) -> None:
    kernel = home.kernel
    page = _before_a_hole(kernel)
    at = page + PAGE_SIZE - 0x13
    known = kernel.read_virtual(at, 0x13)
    assert known is not None
    for source in (sim(), home.complete, home.snapshot):
        ended = call("memory", source, f"{at:x}", "28")
        assert ended.code == 1
        cells = "".join(left + " " + right + " " for _, left, right, _ in _LINE.findall(ended.out)).split()
        assert cells == [f"{byte:02x}" for byte in known] + ["??"] * 0x15
        assert ended.last == f"21 of 40 bytes cannot be read, the first at {format_address(page + PAGE_SIZE)}"
        document = call("memory", source, f"{at:x}", "28", "--json").document
        assert document == {
            "address": hex(at),
            "bytes": known.hex() + "00" * 0x15,
            "unreadable": [[hex(page + PAGE_SIZE), "0x15"]],
        }


def test_a_file_gets_the_raw_bytes_up_to_the_first_that_cannot_be_read(home: Home, tmp_path: Path) -> None:
    kernel = home.kernel
    page = _before_a_hole(kernel)
    whole, part = tmp_path / "whole.bin", tmp_path / "part.bin"
    ended = call("memory", sim(), f"{page:x}", "1000", "-o", whole)
    assert (ended.code, ended.out, ended.last) == (0, "", f"4096 bytes written to {whole}")
    assert whole.read_bytes() == kernel.read_virtual(page, PAGE_SIZE)
    ended = call("memory", home.small, f"{page + 0x800:x}", "1000", "--output", part, "--json")
    assert ended.code == 1
    assert part.read_bytes() == kernel.read_virtual(page + 0x800, 0x800)
    assert ended.document == {
        "address": hex(page + 0x800), "path": str(part), "written": "0x800",
        "unreadable": [[hex(page + PAGE_SIZE), "0x800"]],
    }  # fmt: skip


def test_a_file_that_is_there_stays_as_it_is_and_the_machine_is_not_asked(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    ended = call("memory", sim(), "0", "10", "-o", there)
    assert (ended.code, ended.machines) == (5, ())
    assert ended.err == f"kdbridge: {there} exists already; nothing was overwritten\n"
    assert there.read_text() == "mine"


def test_a_file_that_cannot_be_written_leaves_no_piece_of_itself(home: Home, tmp_path: Path) -> None:
    ended = call("memory", home.complete, "1000", "1000", "--physical", "-o", tmp_path / "no" / "x.bin")
    assert (ended.code, ended.last) == (
        5,
        f"kdbridge: {tmp_path}/no/x.bin cannot be written: No such file or directory",
    )
    out = tmp_path / "full.bin"
    with no_file_longer_than(100_000):
        ended = call("memory", home.complete, "100000", "80000", "--physical", "-o", out)
    assert (ended.code, ended.last) == (5, f"kdbridge: {out} cannot be written: File too large")
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("zzz", "10"), "kdbridge: ADDRESS: 'zzz' is not one; write it as fffff804`7c62a390, 0x1000 or 0n4096"),
        (("", "10"), "kdbridge: ADDRESS: '' is not one; write it as fffff804`7c62a390, 0x1000 or 0n4096"),
        (("0n12f", "10"), "kdbridge: ADDRESS: '0n12f' is not a number"),
        (("10000000000000000", "10"), "kdbridge: ADDRESS: '10000000000000000' needs more than 64 bits"),
        (("0", "one"), "kdbridge: LENGTH: 'one' is not one; write it as fffff804`7c62a390, 0x1000 or 0n4096"),
        (("0", "0"), "kdbridge: LENGTH 0: from 1 byte to 1 GiB, and not beyond the end of memory"),
        (("0", "40000001"), "kdbridge: LENGTH 40000001: from 1 byte to 1 GiB, and not beyond the end of memory"),
        (
            ("0", "ffffffffffffffff"),
            "kdbridge: LENGTH ffffffffffffffff: from 1 byte to 1 GiB, and not beyond the end of memory",
        ),
        (("ffffffffffffffff", "2"), "kdbridge: LENGTH 2: from 1 byte to 1 GiB, and not beyond the end of memory"),
        (("-5", "10"), "Error: No such option '-5'."),
        (("5", "-10"), "Error: No such option '-1'."),
        (("--", "-5", "10"), "kdbridge: ADDRESS: '-5' is not one; write it as fffff804`7c62a390, 0x1000 or 0n4096"),
        (("5",), "Error: Missing argument 'LENGTH'."),
    ],
)
def test_what_is_no_address_or_length_is_told_before_anything_is_asked(words: tuple[str, ...], complaint: str) -> None:
    ended = call("memory", sim(), *words)
    assert (ended.code, ended.out, ended.machines) == (2, "", ())
    assert ended.last == complaint


def test_the_last_byte_of_memory_can_be_asked_for(home: Home) -> None:
    ended = call("memory", home.small, "ffffffffffffffff", "1")
    assert (ended.code, ended.out) == (1, "ffffffff`ffffffff  ??" + " " * 21 + "-" + " " * 23 + "  ?\n")


def test_physical_reads_that_a_machine_refuses_are_told_of() -> None:
    ended = call("memory", sim("no-physical-reads"), "1000", "10", "--physical")
    assert (ended.code, ended.out) == (4, "")
    url = sim("no-physical-reads")
    assert ended.last == f"kdbridge: {url} refuses physical reads; virtual addresses can be read"


def test_where_no_ram_is_a_device_may_be_and_is_read_only_if_that_is_said(home: Home) -> None:
    at = home.kernel.image.device[0].base_page << 12
    ended = call("memory", sim(), f"{at:x}", "10", "--physical")
    assert (ended.code, ended.out) == (2, "")
    assert "a device may be there" in ended.last and "--device" in ended.last
    assert ended.machine.target.machine.memory.device_accesses == []
    ended = call("memory", sim(), f"{at:x}", "10", "--physical", "--device")
    assert ended.code == 1, "it was asked for, and this device does not answer"
    assert ended.machine.target.machine.memory.device_accesses
