"""AMD64's registers: every row of the reference's tables (kd-protocol 5.2, 5.4), and a real machine's bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protocol.arch import AMD64
from protocol.arch.amd64 import CONTEXT, KSPECIAL_REGISTERS
from protocol.errors import LayoutError
from protocol.manipulate import ApiNumber, Manipulate
from protocol.structure import StructureLayout
from tests.protocol.kdnet_capture import Captured
from tests.protocol.reference import number, tables

_SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}

# FltSave, from the paragraph below the table of section 5.2.
_FLOATING_POINT = {
    "control_word": (0x100, 2), "status_word": (0x102, 2), "tag_word": (0x104, 1), "error_opcode": (0x106, 2),
    "error_offset": (0x108, 4), "error_selector": (0x10C, 2), "data_offset": (0x110, 4), "data_selector": (0x114, 2),
    "mx_csr2": (0x118, 4), "mx_csr_mask": (0x11C, 4), "flt_save_reserved": (0x2A0, 0x60),
    **{f"st{n}": (0x120 + 16 * n, 16) for n in range(8)}, **{f"xmm{n}": (0x1A0 + 16 * n, 16) for n in range(16)},
}  # fmt: skip
_SHORT = {
    "kdr": "kerneldr", "lb": "lastbranch", "le": "lastexception", "gdtlimit": "gdtrlimit", "gdtbase": "gdtrbase",
    "idtlimit": "idtrlimit", "idtbase": "idtrbase",
}  # fmt: skip


def _key(name: str) -> str:
    return name.replace("_", "").lower()


def _by_key(layout: StructureLayout) -> dict[str, tuple[int, int]]:
    return {_key(name): (layout.offset_of(name), layout.size_of(name)) for name in layout.fields}


def _published(rows: list[list[str]]) -> dict[str, tuple[int, int]]:
    """Both halves of a table that is two tables side by side; plain numbers only."""
    halves = [row[at : at + 3] for row in rows for at in (0, 3) if len(row) >= at + 3]
    return {
        _key(re.split(r"\W", field.strip("*"))[0]): (number(at), _SIZES[size])
        for at, size, field in halves
        if size in _SIZES
    }


def test_every_register_of_the_context_stands_where_the_reference_says(shared: Path) -> None:
    declared, published = _by_key(CONTEXT), _published(tables(shared, "5.2")[0])
    assert len(published) == 38
    assert {name: declared[name] for name in published} == published
    assert {name: (CONTEXT.offset_of(name), CONTEXT.size_of(name)) for name in _FLOATING_POINT} == _FLOATING_POINT
    assert [CONTEXT.offset_of(f"p{n}_home") for n in range(1, 7)] == [0, 8, 0x10, 0x18, 0x20, 0x28]
    assert (CONTEXT.offset_of("vector_register"), CONTEXT.size_of("vector_register")) == (0x300, 26 * 16)
    assert CONTEXT.size == 0x4D0
    # Nothing is declared that none of these names, and no byte is left between two.
    named = set(published) | {_key(name) for name in _FLOATING_POINT} | {"vectorregister"}
    assert {name for name in declared if name not in named} == {
        *(f"p{n}home" for n in range(1, 7)), "reserved1", "reserved2", "reserved3",
    }  # fmt: skip
    assert sum(size for _, size in declared.values()) == 0x4D0


def test_every_special_register_stands_where_the_reference_says(shared: Path) -> None:
    declared, published = _by_key(KSPECIAL_REGISTERS), _published(tables(shared, "5.4")[0])
    published["reserved"] = published.pop("padding")
    for table, at in (("gdtr", 0x50), ("idtr", 0x60)):
        published |= {f"{table}limit": (at + 6, 2), f"{table}base": (at + 8, 8)}
    assert declared == published
    assert len(published) == 32


def test_a_real_machine_s_contexts(captured: list[Captured]) -> None:
    described = [packet for packet in captured if "decoded_context" in packet.said]
    assert len(described) == 7
    for packet in described:
        data = Manipulate.decode(packet.payload).data
        context = CONTEXT.decode(data)
        said = {_key(name): int(value, 16) for name, value in packet.said["decoded_context"].items()}
        ours = {_key(name): value for name, value in context.values.items()}
        assert {name: ours[name] for name in said} == said
        assert CONTEXT.encode(context.values) == data, "every byte of it belongs to a field"


def test_windbg_steps_over_an_int3_by_one_field(captured: list[Captured]) -> None:
    messages = [Manipulate.decode(packet.payload) for packet in captured if packet.packet_type == 2]
    read = next(m for m in messages if m.api == ApiNumber.GET_CONTEXT and m.data)
    written = next(m for m in messages if m.api == ApiNumber.SET_CONTEXT and m.data)
    stepped = CONTEXT.encode({"rip": CONTEXT.decode(read.data)["rip"] + 1}, read.data)
    assert stepped == written.data


def test_a_real_machine_s_special_registers(captured: list[Captured]) -> None:
    described = [packet for packet in captured if "decoded_kspecial" in packet.said]
    assert len(described) == 5
    for packet in described:
        data = Manipulate.decode(packet.payload).data
        assert len(data) == 0xE0, "10586 is older than MsrFsBase"
        special = KSPECIAL_REGISTERS.decode(data, least=AMD64.special_registers_least)
        ours = {_key(name): value for name, value in special.values.items()}
        for name, value in packet.said["decoded_kspecial"].items():
            short = _key(name)
            key = next((long + short.removeprefix(s) for s, long in _SHORT.items() if short.startswith(s)), short)
            key = {"lastbranchto": "lastbranchtorip", "lastbranchfrom": "lastbranchfromrip"}.get(key, key)
            key = {"lastexceptionto": "lastexceptiontorip", "lastexceptionfrom": "lastexceptionfromrip"}.get(key, key)
            assert ours[key] == int(value, 16), name
        assert special.has("xcr0") and not special.has("msr_fs_base")
        assert KSPECIAL_REGISTERS.encode(special.values, size=0xE0) == data


@pytest.mark.parametrize(
    ("size", "xcr0", "fs_base"),
    [(0xA8, False, False), (0xD8, False, False), (0xE0, True, False), (0xF0, True, True), (0x5C0, True, True)],
)
def test_every_age_of_special_registers_is_read(size: int, xcr0: bool, fs_base: bool) -> None:
    special = KSPECIAL_REGISTERS.decode(bytes(0x10) + b"\0\xb0\x1a" + bytes(size - 0x13), least=0xA8)
    assert (special.has("xcr0"), special.has("msr_fs_base")) == (xcr0, fs_base)
    assert (special["cr3"], special.has("cr8")) == (0x1AB000, True)


def test_less_than_the_control_registers_is_no_answer() -> None:
    assert AMD64.special_registers_least == 0xA8
    with pytest.raises(LayoutError):
        KSPECIAL_REGISTERS.decode(bytes(0xA7), least=AMD64.special_registers_least)
    with pytest.raises(LayoutError):
        CONTEXT.decode(bytes(0x4CF))


def test_shared_data_stands_where_the_reference_says(shared: Path) -> None:
    rows = tables(shared, "7.5")[0]
    halves = [row[at : at + 2] for row in rows for at in (0, 2)]
    published = {}
    for at, field in halves:
        found = re.search(r"\b[A-Z]\w+", field)
        if found is not None:
            published[_key(found[0])] = number(at)
    ours = {_key(name): offset for name, offset in AMD64.shared_data_offsets.items()}
    assert {name: published[name] for name in ours} == ours
    assert len(ours) == 12
    assert AMD64.fixed_shared_data == 0xFFFFF78000000000


def test_numbers_of_the_reference() -> None:
    # 3.9: the breakpoint instruction; 2.8: TF; 5.2: context flags, ALL without XSTATE; 2.5: DR7 in the report.
    assert (AMD64.machine_type, AMD64.break_instruction, AMD64.trace_flag) == (0x8664, b"\xcc", 0x100)
    assert (AMD64.context_flags_base, AMD64.context_flags_all) == (0x100000, 0x10001F)
    assert AMD64.control_report_dr7 == 8
    # 7.5: CR3's mask. 7.2: the status of a break is in rcx.
    assert AMD64.paging.root_mask == AMD64.paging.frame_mask == 0x000FFFFFFFFFF000
    assert AMD64.first_argument == "rcx"
