"""The tables of small dumps for both widths: offsets of the reference, and bytes that WinDbg's engine wrote."""

from __future__ import annotations

from protocol.dumpfile.triage_layout import TRIAGE_DUMP32, TRIAGE_DUMP64, TRIAGE_FORMS


def test_the_table_ends_where_the_reference_says() -> None:
    # dump-formats 4.1.
    wide = {"top_of_stack": 0x48, "data_page_address": 0x60, "data_page_offset": 0x68, "data_page_size": 0x6C,
            "debugger_data_offset": 0x70, "data_blocks_offset": 0x78}  # fmt: skip
    narrow = {"top_of_stack": 0x48, "data_page_address": 0x4C, "data_page_offset": 0x50, "data_page_size": 0x54,
              "debugger_data_offset": 0x58, "data_blocks_offset": 0x60}  # fmt: skip
    assert {name: TRIAGE_DUMP64.offset_of(name) for name in wide} == wide
    assert {name: TRIAGE_DUMP32.offset_of(name) for name in narrow} == narrow
    assert [forms.dump.size for forms in TRIAGE_FORMS.values()] == [0x80, 0x68]


def test_a_wide_driver_entry_is_the_one_of_the_reference() -> None:
    # dump-formats 4.2: offsets relative to entry + 8.
    fields = {"dll_base": 0x30, "entry_point": 0x38, "size_of_image": 0x40, "flags": 0x68, "check_sum": 0x78,
              "time_date_stamp": 0x80}  # fmt: skip
    layout = TRIAGE_FORMS[64].driver
    assert layout.size == 0x90
    assert {name: layout.offset_of(name) - 8 for name in fields} == fields


def test_a_narrow_driver_entry_is_the_one_that_the_engine_writes() -> None:
    raw = bytes.fromhex(
        "c0600000 00000000 00000000 00000000 00000000 00000000 00000000 00005380 00000000 00300000 00000000 00000000"
        "00000000 00000000 00000000 00000000 00000000 efbe0000 23c15b4a"
    )
    entry = TRIAGE_FORMS[32].driver.decode(raw)
    assert len(raw) == TRIAGE_FORMS[32].driver.size
    assert (entry["name_offset"], entry["dll_base"], entry["size_of_image"]) == (0x60C0, 0x80530000, 0x3000)
    assert (entry["check_sum"], entry["time_date_stamp"]) == (0xBEEF, 0x4A5BC123)
