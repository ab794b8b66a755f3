"""Unwind data through pefile's reader, an image made of every operation, and bytes that mean nothing."""

from __future__ import annotations

import random
import struct

import pefile
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LayoutError
from protocol.unwind.info import (
    REGISTERS,
    RUNTIME_FUNCTION_SIZE,
    RuntimeFunction,
    UnwindCode,
    UnwindFlag,
    UnwindInfo,
    UnwindOperation,
    parse_runtime_function,
    parse_unwind_info,
    unwind_codes_end,
    unwind_info_size,
)
from simulator.call_chains import chains_image
from simulator.pe import plan_image


def _as_pefile_says(code: UnwindCode, info: UnwindInfo) -> str:
    """pefile writes codes as MASM does."""
    register, number = REGISTERS[code.info].upper(), hex(code.operand)
    match code.operation:
        case UnwindOperation.PUSH_NONVOL:
            return f".PUSHREG {register}"
        case UnwindOperation.ALLOC_LARGE | UnwindOperation.ALLOC_SMALL:
            return f".ALLOCSTACK {number}"
        case UnwindOperation.SET_FPREG:
            return f".SETFRAME {REGISTERS[info.frame_register].upper()}, {info.frame_offset:#x}"
        case UnwindOperation.SAVE_NONVOL | UnwindOperation.SAVE_NONVOL_FAR:
            return f".SAVEREG {register}, {number}"
        case UnwindOperation.SAVE_XMM128 | UnwindOperation.SAVE_XMM128_FAR:
            return f".SAVEXMM128 XMM{code.info}, {number}"
        case UnwindOperation.PUSH_MACHFRAME:
            return ".PUSHFRAME" + (" <code>" if code.info else "")
        case _:
            raise AssertionError(code)


def test_every_operation_is_what_pefile_reads() -> None:
    """Images of random functions, as files. pefile reads rows, heads, codes and what is chained."""
    seen: set[UnwindOperation] = set()
    for seed in range(3):
        plan = plan_image(chains_image(seed, 12), random.Random(seed))
        file = plan.as_file()
        reader = pefile.PE(data=file, fast_load=True)
        reader.parse_data_directories([pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_EXCEPTION"]])
        start, size = plan.exception_table
        rows = [parse_runtime_function(file[at:]) for at in range(start, start + size, RUNTIME_FUNCTION_SIZE)]
        theirs = reader.DIRECTORY_ENTRY_EXCEPTION
        assert len(theirs) == len(rows) > 60
        for row, their in zip(rows, theirs, strict=True):
            assert (row.begin, row.end) == (their.struct.BeginAddress, their.struct.EndAddress)
            assert row.unwind_data == their.struct.UnwindData
            if row.indirect:
                assert parse_runtime_function(file[row.unwind_data & ~1 :]) in rows
                continue
            info, read = parse_unwind_info(file[row.unwind_data :]), their.unwindinfo
            assert (info.version, info.flags, info.prolog_size, info.slots) == (
                read.Version, read.Flags, read.SizeOfProlog, read.CountOfCodes,
            )  # fmt: skip
            assert (info.frame_register, info.frame_offset // 16) == (read.FrameRegister, read.FrameOffset)
            if info.chained is not None:
                assert info.chained.begin == read.FunctionEntry
            elif info.flags:
                assert info.handler == read.ExceptionHandler == plan.rvas["SomewhereElse"]
            ours = [code for code in info.codes if code.operation is not UnwindOperation.EPILOG]
            # What pefile says of epilogs is another matter: it makes one of two codes.
            prolog = [str(code) for code in read.UnwindCodes if str(code).startswith(".")]
            assert [_as_pefile_says(code, info) for code in ours] == prolog
            seen |= {code.operation for code in info.codes}
    assert seen == set(UnwindOperation) - {UnwindOperation.SPARE}


def test_the_documentation_s_example() -> None:
    """Microsoft Learn, "x64 prolog and epilog": mov [rsp+8],rcx; push r15, r14, r13; sub; lea r13,[rsp+128]."""
    data = bytes([1, 0x19, 6, 13 | 8 << 4, 0x19, 3, 0x11, 1, 0x20, 0, 0x0B, 0xD0, 9, 0xE0, 7, 0xF0])
    info = parse_unwind_info(data)
    assert (REGISTERS[info.frame_register], info.frame_offset) == ("r13", 128)
    assert [(code.offset, code.operation.name, code.info, code.operand) for code in info.codes] == [
        (0x19, "SET_FPREG", 0, 0),
        (0x11, "ALLOC_LARGE", 0, 0x100),
        (0x0B, "PUSH_NONVOL", 13, 0),
        (9, "PUSH_NONVOL", 14, 0),
        (7, "PUSH_NONVOL", 15, 0),
    ]
    assert len(data) == unwind_info_size(data) == unwind_codes_end(data)


def test_epilogs_of_version_2_are_counted_from_the_end() -> None:
    head = bytes([2, 4, 4, 0])
    info = parse_unwind_info(head + bytes([6, 0x16, 0x34, 0x26, 0, 6, 4, 0x42]))
    function = RuntimeFunction(0x1000, 0x1400, 0)
    assert list(info.epilogs(function)) == [(0x13FA, 6), (0x1400 - 0x234, 6)]
    without_last = parse_unwind_info(head + bytes([6, 0x06, 0x34, 0x26, 0, 6, 4, 0x42]))
    assert list(without_last.epilogs(function)) == [(0x1400 - 0x234, 6)]
    assert list(without_last.epilogs(RuntimeFunction(0x1300, 0x1400, 0))) == [], "it would lie before the function"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "only 0 of 4 bytes"),
        (bytes([3, 0, 0, 0]), "version 3 is not known"),
        (bytes([1, 0, 2, 0, 1, 2]), "only 6 of 8 bytes"),
        (bytes([1, 0, 1, 0, 4, 0x0B, 0, 0]), "operation 11 is not known"),
        (bytes([1, 0, 1, 0, 4, 0x01, 0, 0]), r"last unwind code \(ALLOC_LARGE\) is cut off"),
        (bytes([1 | 4 << 3, 0, 0, 0]), "only 4 of 16 bytes"),
        (bytes([1 | 1 << 3, 0, 0, 0]), "only 4 of 8 bytes"),
    ],
)
def test_what_is_no_unwind_data_is_refused_by_name(data: bytes, problem: str) -> None:
    with pytest.raises(LayoutError, match=f"^UNWIND_INFO at 0x1234: .*{problem}"):
        parse_unwind_info(data, 0x1234)


def test_a_row_cut_off_is_refused() -> None:
    with pytest.raises(LayoutError, match="RUNTIME_FUNCTION at 0x10: only 11 of 12 bytes"):
        parse_runtime_function(bytes(11), 0x10)
    assert parse_runtime_function(struct.pack("<III", 1, 2, 5)).indirect


@given(st.binary(max_size=600))
def test_anything_is_unwind_data_or_a_layout_error(data: bytes) -> None:
    try:
        info = parse_unwind_info(data)
    except LayoutError:
        return
    assert info.version in (1, 2) and unwind_info_size(data) <= len(data)
    assert sum(1 for _ in info.epilogs(RuntimeFunction(0, 1 << 20, 0))) <= len(info.codes)
    assert (info.chained is None) == (not info.flags & UnwindFlag.CHAININFO)
