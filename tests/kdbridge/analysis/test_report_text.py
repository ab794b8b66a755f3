"""The report in the terminal: what matters first, lines that fit, guesses marked, nothing left out in silence."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from kdbridge.analysis.model import Analysis, Missing, Place, Trust
from kdbridge.analysis.report_text import (
    first_lines,
    image_lines,
    missing_lines,
    print_lines,
    process_lines,
    rest_lines,
    stack_lines,
)
from tests.kdbridge.analysis.filled import bare, filled


def _place_of(lines: list[str], text: str) -> int:
    return next(at for at, line in enumerate(lines) if text in line)


@pytest.mark.parametrize("analysis", [filled(), bare()], ids=["filled", "bare"])
def test_lines_fit(analysis: Analysis) -> None:
    lines = [*first_lines(analysis), *rest_lines(analysis)]
    assert [line for line in lines if len(line) > 110 and not line.startswith("  line")] == []
    assert [line for line in lines if line != line.rstrip() and line.strip()] == []


def test_the_first_screen_says_what_matters_first() -> None:
    lines = list(first_lines(filled()))
    assert lines[0] == "DRIVER_IRQL_NOT_LESS_OR_EQUAL (d1)"
    order = ["ffffa70f`00266c10  ", "suspect      mydrv (certain)", "bucket       D1_mydrv+1045",
             "trap frame at ffffbb80`19e23010", "rip=fffff80214999045", "> fffff802`14999045 488b4010",
             "stack of processor 0", "nt!KeBugCheckEx", "mydrv!ReadPort+0x45"]  # fmt: skip
    places = [_place_of(lines, text) for text in order]
    assert places == sorted(places)
    assert len(lines) < 50, "a screen"


def test_parameters_say_what_they_point_to() -> None:
    lines = list(first_lines(filled()))
    assert any(line.endswith("memory that was touched: not mapped") for line in lines)
    assert any(line.endswith("instruction that did it: mydrv+0x1045") for line in lines)


def test_registers_that_nobody_knows_are_question_marks() -> None:
    text = "\n".join(first_lines(filled()))
    assert "rax=0000000000000017 rbx=???????????????? " in text
    crash = filled().crash
    assert crash is not None
    whole = replace(crash, known=frozenset(crash.context.values))
    assert "rbx=??" not in "\n".join(first_lines(replace(filled(), crash=whole)))


def test_memory_that_was_touched_is_told() -> None:
    text = "\n".join(first_lines(filled()))
    assert "reads 8 bytes at [rax+0x10] = ffffa70f`00266c10, which cannot be read" in text
    # Little endian: the bytes 01 02 03 04 are the number 04030201.
    assert "writes 4 bytes at [rcx] = ffffa70f`00266000, 04030201 lies there" in text


@pytest.mark.parametrize("trust", list(Trust))
def test_guessed_frames_are_marked_and_only_those(trust: Trust) -> None:
    stack = filled().stack
    assert stack is not None
    lines = list(stack_lines(replace(stack, frames=tuple(replace(one, trust=trust) for one in stack.frames))))
    marked = [line for line in lines if re.match("[0-9a-f]{2} [?]", line)]
    assert len(marked) == (len(stack.frames) if trust.guessed else 0)
    assert any(line.strip().startswith("? a guess") for line in lines) is trust.guessed


def test_a_stack_reads_as_k_does() -> None:
    stack = filled().stack
    assert stack is not None
    lines = list(stack_lines(stack))
    # The columns of WinDbg's `k`.
    assert lines[1].split() == ["Child-SP", "RetAddr", "Call", "Site"]
    assert lines[2].split() == ["00", "ffffbb80`19e22f88", "fffff802`13802210", "nt!KeBugCheckEx"]
    assert any(line.lstrip().startswith("not whole: ") for line in lines)
    assert not any("not whole" in line for line in stack_lines(replace(stack, whole=True, ended="")))


def test_what_was_said_of_a_frame_is_not_said_again() -> None:
    stack = filled().stack
    assert stack is not None
    why = "the unwind data of amdppm.sys cannot be used; the code before it could not be looked at"
    notes = ("", why, f"below a guess: {why}", "below a guess: something else")
    frames = tuple(replace(stack.frames[0], trust=Trust.SCANNED, note=note) for note in notes)
    text = "\n".join(stack_lines(replace(stack, frames=frames)))
    assert text.count("cannot be used") == text.count("looked at") == text.count("something else") == 1


def test_a_flood_of_guesses_is_cut_and_that_is_said() -> None:
    stack = filled().stack
    assert stack is not None
    many = replace(stack, frames=(*stack.frames[:2], *(replace(stack.frames[1], trust=Trust.SCANNED, note=""),) * 50))
    lines = list(stack_lines(many, most_guesses=12))
    assert sum(" ? " in line for line in lines) == 13 and any("38 more guesses" in line for line in lines)
    assert sum(" ? " in line for line in stack_lines(many)) == 51
    assert not any("more guesses" in line for line in stack_lines(stack, most_guesses=1))


def test_third_party_modules_come_first_and_the_suspect_is_marked() -> None:
    lines = list(rest_lines(filled()))
    order = ["modules: third-party (1)", "! fffff802`14998000", "modules: no version says whose (1)",
             "modules: Microsoft's (1)", "* fffff802`13800000"]  # fmt: skip
    places = [_place_of(lines, text) for text in order]
    assert places == sorted(places)


def test_images_alone_are_in_load_order_without_marks() -> None:
    lines = list(image_lines(filled().images))
    assert [line[:20].strip() for line in lines] == ["fffff802`13800000", "fffff802`14998000", "fffff802`14a00000"]


def test_processes_and_their_threads() -> None:
    text = "\n".join(process_lines(filled().processes))
    assert re.search(r"\* +4 +0  ffffa70f`00100080 +0x1aa000  System  \(on processor 0\)", text)
    assert "thread 88 of process 4  ffffa70f`00200080  running on processor 0" in text
    assert re.search(r" +620 +[?]  ffffa70f`00300080", text)


def test_prints_are_cut_at_their_beginning_and_that_is_said() -> None:
    lines = list(print_lines("".join(f"{number}\r\n" for number in range(50)), 10))
    assert lines[0].startswith("(40 lines before these; ") and lines[1:] == [str(number) for number in range(40, 50)]
    assert list(print_lines("a\nb\n")) == ["a", "b"]


def test_what_is_missing_is_told_with_its_addresses() -> None:
    ranges = tuple((0xFFFFF80213800000 + number * 0x10000, 0x1000) for number in range(12))
    lines = list(missing_lines([Missing("stack of thread 1", "it ends", ranges)]))
    text = " ".join(line.strip() for line in lines)
    assert "stack of thread 1: it ends" in text and "and 6 more" in text
    assert text.count("(0x1000 bytes)") == 6
    assert list(missing_lines([])) == []


def test_what_lacks_for_one_reason_is_told_once() -> None:
    lacks = [Missing(f"stack of processor {number}", "it ends", ((number << 12, 1),)) for number in (1, 2, 5)]
    lines = list(missing_lines([*lacks, Missing("stack of processor 7", "other"), Missing("versions", "it ends")]))
    assert [line for line in lines if ":" in line] == [
        "  stack of processor 1, 2, 5: it ends", "  stack of processor 7: other", "  versions: it ends",
    ]  # fmt: skip
    assert lines[3].count("(0x1 bytes)") == 3


def test_a_machine_without_a_bug_check_says_so() -> None:
    for code, words in ((None, "whether there was a bug check is not known"), (0, "no bug check")):
        target = replace(bare().target, bug_check_code=code, break_status=None)
        assert next(first_lines(replace(bare(), target=target))) == words
        # 1 is DBG_STATUS_CONTROL_C.
        stopped = replace(bare(), target=replace(target, break_status=1))
        assert next(first_lines(stopped)) == f"{words}: stopped by a break-in"
    assert "none: no rule names a driver" in "\n".join(first_lines(bare()))


def test_a_place_without_an_image_is_an_address() -> None:
    stack = filled().stack
    assert stack is not None
    nowhere = replace(stack.frames[0], place=Place(0x1000))
    assert list(stack_lines(replace(stack, frames=(nowhere,))))[2].endswith(" 00000000`00001000")
