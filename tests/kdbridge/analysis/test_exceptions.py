"""Exceptions in words, by what Microsoft publishes of EXCEPTION_RECORD's parameters."""

from __future__ import annotations

import pytest

from kdbridge.analysis.exceptions import exception_fact, exception_in_words
from kdbridge.analysis.names import Names
from protocol.arch import AMD64
from protocol.dumpfile.exception import ExceptionRecord
from tests.kdbridge.analysis.made_up import KERNEL, module


@pytest.mark.parametrize(
    ("code", "parameters", "words"),
    [
        (0xC0000005, (0, 0xFFFFA70F_00000010), "it read ffffa70f`00000010, which it must not"),
        (
            0xC0000005,
            (1, 0x18),
            "it wrote to 00000000`00000018, which it must not: a null pointer and an offset of 0x",
        ),
        (0xC0000005, (8, 0), "it executed 00000000`00000000, which it must not: a null pointer"),
        (0xC0000005, (0, 0x7FF6_00001000), "it read 00007ff6`00001000, which it must not: user memory"),
        (0xC0000005, (0, 0x4141414141414141), "it read 41414141`41414141, which it must not: not canonical"),
        (0xC0000005, (0, 0xFFFFFFFF_FFFFFFFF), "it read an address that is not canonical, or not told"),
        (0xC0000006, (0, 0x1000, 0xC000000E), "the page could not be read in: STATUS_NO_SUCH_DEVICE"),
        (0xC0000409, (3,), "fast fail 0x3: A doubly linked list is corrupt"),
        (0xC0000094, (), "STATUS_INTEGER_DIVIDE_BY_ZERO: integer division by zero"),
        (0xDEADBEEF, (), "0xdeadbeef: an exception that is not one of the usual"),
        (0xC0000005, (), "STATUS_ACCESS_VIOLATION: memory was touched"),
    ],
)
def test_words(code: int, parameters: tuple[int, ...], words: str) -> None:
    assert words in exception_in_words(code, parameters, AMD64)


async def test_a_fact_has_the_place() -> None:
    names = Names([module("ntoskrnl.exe", KERNEL), module("mydrv.sys", KERNEL + 0x100000)], (), KERNEL)
    record = ExceptionRecord(0xC0000005, 0, 0, KERNEL + 0x101234, (0, 8))
    fact = await exception_fact(record, names, AMD64)
    assert (str(fact.place), fact.code, fact.parameters) == ("mydrv+0x1234", 0xC0000005, (0, 8))
