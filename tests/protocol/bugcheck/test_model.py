"""Rows of the tables: what the constructors fill in, and which subcase a first parameter selects."""

from __future__ import annotations

import pytest

from protocol.bugcheck import BugCheck, ParameterKind, parameters_of
from protocol.bugcheck.model import RESERVED, bug, case


@pytest.fixture
def row() -> BugCheck:
    one = case(1, "One.", ParameterKind.IRP("request"))
    return bug(0x9999, "INVENTED", "It is not real.", ParameterKind.SUBCODE("x"), cases=(one, case(5, "Many.", last=9)))


def test_parameters_that_are_not_given_are_reserved(row: BugCheck) -> None:
    assert row.parameters == (ParameterKind.SUBCODE("x"), RESERVED, RESERVED, RESERVED)
    assert row.subcases[0].parameters == (ParameterKind.IRP("request"), RESERVED, RESERVED)
    assert row.subcases[1].parameters is None, "those of the bug check hold"


@pytest.mark.parametrize(
    ("parameter", "meaning"), [(0, None), (1, "One."), (2, None), (4, None), (5, "Many."), (9, "Many."), (10, None)]
)
def test_subcases_are_chosen_by_the_first_parameter(row: BugCheck, parameter: int, meaning: str | None) -> None:
    found = row.subcase((parameter, 5, 5, 5))
    assert (found.meaning if found else None) == meaning


@pytest.mark.parametrize("selector", [1, 2, 3, 4])
def test_subcases_may_be_chosen_by_another(selector: int) -> None:
    one = case(7, "Seven.", *map(ParameterKind.VALUE, "xyz"))
    row = bug(
        0x9999, "INVENTED", "It is not real.", *map(ParameterKind.SUBCODE, "abcd"), cases=(one,), selector=selector
    )
    values = [0, 0, 0, 0]
    assert row.subcase(values) is None and parameters_of(row, values) == row.parameters
    values[selector - 1] = 7
    words = "".join(parameter.words for parameter in parameters_of(row, values))
    assert words == ["axyz", "xbyz", "xycz", "xyzd"][selector - 1]


def test_a_row_of_five_parameters_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="too many values"):
        bug(0x9999, "INVENTED", "It is not real.", *[RESERVED] * 5)
