"""Codes and names against those of Microsoft's SDK (windows_sdk_bug_checks.txt)."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.bugcheck import BUG_CHECKS, bug_check, bug_check_name

# Published among the bug checks, but texts that Windows shows while it boots, and a flag.
_NO_BUG_CHECKS = {
    *(0x40010001, 0x40010002, 0x40010003, 0x4000007E, 0x40000087, 0x40000088, 0x40000089, 0x4000009D, 0x4000009E),
    *(0xA8, 0xA9, 0xAA, 0xB5, 0xB6, 0xB7, 0x80000000),
}
# In the debugger's documentation, but not in the SDK: two codes of older systems, and two that are NTSTATUS values.
_ELSEWHERE = {
    0x71: "SESSION5_INITIALIZATION_FAILED",
    0x10F: "RESOURCE_MANAGER_EXCEPTION_NOT_HANDLED",
    0xC0000218: "STATUS_CANNOT_LOAD_REGISTRY_FILE",
    0xC0000221: "STATUS_IMAGE_CHECKSUM_MISMATCH",
}


def published(file: str, base: int) -> dict[int, str]:
    text = (Path(__file__).parent / file).read_text(encoding="ascii")
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {int(number, base): name for number, name in rows}


def test_every_published_code_is_there_under_its_name() -> None:
    names = published("windows_sdk_bug_checks.txt", 16)
    expected = {code: name for code, name in names.items() if code not in _NO_BUG_CHECKS} | _ELSEWHERE
    ours = {code: row.name for code, row in BUG_CHECKS.items()}
    assert len(expected) > 500
    assert sorted(set(expected.items()) ^ set(ours.items())) == []


def test_rows_are_keyed_by_their_own_code_in_ascending_order() -> None:
    assert [row.code for row in BUG_CHECKS.values()] == sorted(BUG_CHECKS)


def test_words_are_sentences_and_subcases_do_not_shadow_each_other() -> None:
    for row in BUG_CHECKS.values():
        assert row.meaning.endswith("."), row.name
        assert all(parameter.words for parameter in row.parameters), row.name
        ends = [
            bound for case in sorted(row.subcases, key=lambda case: case.value) for bound in (case.value, case.last)
        ]
        assert ends == sorted(ends) and len({case.value for case in row.subcases}) == len(row.subcases), row.name
        assert all(case.meaning.endswith(".") for case in row.subcases), row.name
        for case in row.subcases:
            assert row.subcase((case.value,) * 4) is row.subcase((case.last,) * 4) is case


def test_crashes_and_dumps_that_somebody_wanted() -> None:
    """Those that Microsoft's names call so, and those of which its documentation says so."""
    names = published("windows_sdk_bug_checks.txt", 16)
    wanted = {code for code, name in names.items() if "MANUALLY_INITIATED" in name or "SIMULATE" in name}
    assert len(wanted) == 8
    wanted |= {0x161, 0x400000AD}
    assert {code for code, row in BUG_CHECKS.items() if row.asked_for} == wanted


def test_fast_fail_codes_are_those_published() -> None:
    codes = published("windows_sdk_fast_fails.txt", 10)
    assert {case.value for case in BUG_CHECKS[0x139].subcases} == set(codes)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0xD1, "DRIVER_IRQL_NOT_LESS_OR_EQUAL"),
        (0x1000007E, "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED_M"),
        (0x100000D1, "DRIVER_IRQL_NOT_LESS_OR_EQUAL"),  # a modifier on a code that is not published with it
        (0x8000000A, "IRQL_NOT_LESS_OR_EQUAL"),
        (0xC000021A, "WINLOGON_FATAL_ERROR"),
        (0xDEADDEAD, "MANUALLY_INITIATED_CRASH1"),
        (0xC000000A, "BUG CHECK 0xc000000a"),  # an NTSTATUS, not IRQL_NOT_LESS_OR_EQUAL with two modifiers
        (0xFFFFFFFF, "BUG CHECK 0xffffffff"),
        (0, "BUG CHECK 0x0"),
    ],
)
def test_names(code: int, name: str) -> None:
    assert bug_check_name(code) == name
    assert (bug_check(code) is None) == name.startswith("BUG CHECK")


def test_the_table_cannot_be_written() -> None:
    with pytest.raises(TypeError):
        BUG_CHECKS[0] = BUG_CHECKS[0xA]  # type: ignore[index]
