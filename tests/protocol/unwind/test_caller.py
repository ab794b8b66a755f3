"""Prologs undone and epilogs carried on: examples of Microsoft's documentation, worked by hand."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LayoutError
from protocol.unwind.caller import CallerPlaces, finish_epilog, undo_prolog
from protocol.unwind.info import UnwindInfo, parse_unwind_info

_RSP, _RBP, _RBX, _R13, _R14, _R15 = 4, 5, 3, 13, 14, 15


def _info(*codes: int | bytes, head: bytes = bytes([1, 0x19, 0])) -> UnwindInfo:
    slots = b"".join(code if isinstance(code, bytes) else struct.pack("<H", code) for code in codes)
    frame = head[3:] or b"\0"
    return parse_unwind_info(head[:2] + bytes([len(slots) // 2]) + frame + slots + bytes(-len(slots) % 4))


def _registers(**known: int) -> list[int | None]:
    registers: list[int | None] = [None] * 16
    for name, value in known.items():
        registers[{"rsp": _RSP, "rbp": _RBP, "rbx": _RBX, "r13": _R13}[name]] = value
    return registers


# The documentation's prolog: push r15, r14, r13; sub rsp,100h; lea r13,[rsp+80h], and it may allocate more later.
_DOCUMENTED = _info(0x0319, 0x0111, 0x20, 0xD00B, 0xE009, 0xF007, head=bytes([1, 0x19, 0, 13 | 8 << 4]))


def test_in_the_body_the_frame_register_counts() -> None:
    places = undo_prolog([(_DOCUMENTED, 0x40)], _registers(rsp=0x1000, r13=0x5080))
    assert places == CallerPlaces(0x5000 + 0x100 + 24, saved={_R13: 0x5100, _R14: 0x5108, _R15: 0x5110})
    assert undo_prolog([(_DOCUMENTED, 0x40)], _registers(rsp=0x1000)) is None, "it is not known"


def test_in_the_prolog_only_what_was_done_is_undone() -> None:
    for inside, pushed, allocated in ((0, 0, 0), (6, 0, 0), (7, 1, 0), (0x0B, 3, 0), (0x10, 3, 0), (0x11, 3, 0x100)):
        places = undo_prolog([(_DOCUMENTED, inside)], _registers(rsp=0x1000))
        assert places is not None
        assert places.return_slot == 0x1000 + allocated + 8 * pushed, hex(inside)
        order = [_R13, _R14, _R15][3 - pushed :]
        assert places.saved == {register: 0x1000 + allocated + 8 * at for at, register in enumerate(order)}


def test_saves_are_found_from_the_fixed_part_of_the_frame() -> None:
    """SAVE_NONVOL rbx at 30h, and rbp, far, at 40h; alloc 48h. A frame register moves both."""
    codes = (0x3410, 6, 0x5510, 0x40, 0, 0x8208)
    places = undo_prolog([(_info(*codes), 0x20)], _registers(rsp=0x1000))
    assert places == CallerPlaces(0x1048, saved={_RBX: 0x1030, _RBP: 0x1040})
    framed = _info(*codes[:-1], 0x030C, 0x8208, head=bytes([1, 0x10, 0, 13 | 1 << 4]))
    places = undo_prolog([(framed, 0x20)], _registers(rsp=0x800, r13=0x1010))
    assert places == CallerPlaces(0x1048, saved={_RBX: 0x1030, _RBP: 0x1040})


def test_what_it_is_chained_to_is_undone_as_a_whole() -> None:
    """Shrink-wrapping: a part saves rbx with its first instruction; the function pushed rbp before."""
    part, start = _info(0x3404, 4), _info(0x4206, 0x5001)
    before = undo_prolog([(part, 0), (start, None)], _registers(rsp=0x1000))
    behind = undo_prolog([(part, 4), (start, None)], _registers(rsp=0x1000))
    assert before == CallerPlaces(0x1030, saved={_RBP: 0x1028})
    assert behind == CallerPlaces(0x1030, saved={_RBP: 0x1028, _RBX: 0x1020})


def test_the_processor_s_own_frame() -> None:
    """push rbp over an interrupt's frame, with and without an error code: rip is what lies first in it."""
    for error_code in (0, 1):
        places = undo_prolog([(_info(0x5001, 0x0A00 | error_code << 12), 8)], _registers(rsp=0x1000))
        assert places == CallerPlaces(0x1008 + 8 * error_code, machine_frame=True, saved={_RBP: 0x1000})


def test_an_epilog_of_version_2_goes_on_where_it_stands() -> None:
    """pushfq; push r14; push rbx; sub rsp,28h. Its epilog: pop rbx (5B), pop r14 (41 5E), pop rcx (59), ret (C3)."""
    info = _info(0x1605, 0x0600, 0x4208, 0x3004, 0xE003, 0x0201, head=bytes([2, 8, 0]))
    expected = {
        0: CallerPlaces(0x1018, saved={_RBX: 0x1000, _R14: 0x1008}),
        1: CallerPlaces(0x1010, saved={_R14: 0x1000}),
        3: CallerPlaces(0x1008),
        4: CallerPlaces(0x1000),
    }
    assert {offset: finish_epilog([info], offset, 0x1000) for offset in expected} == expected


def test_numbers_stay_in_64_bits() -> None:
    places = undo_prolog([(_info(0x5001), 8)], _registers(rsp=(1 << 64) - 8))
    assert places is not None and places.return_slot == 0


@given(st.binary(min_size=4, max_size=80), st.integers(0, 300) | st.none(), st.lists(st.integers(0, 255), max_size=2))
def test_whatever_the_codes_say_it_ends_with_addresses(data: bytes, inside: int | None, more: list[int]) -> None:
    parts: list[tuple[UnwindInfo, int | None]] = []
    for version in (1, 2):
        try:
            parts.append((parse_unwind_info(bytes([version, *data[1:], *more, *bytes(600)])), inside))
        except LayoutError:
            return
    for registers in ([0x1000] * 16, [None] * 4 + [0] + [None] * 11, [(1 << 64) - 1] * 16):
        for places in (undo_prolog(parts, registers), finish_epilog([info for info, _ in parts], 0, 0x1000)):
            if places is not None:
                assert all(0 <= address < 1 << 64 for address in (places.return_slot, *places.saved.values()))
