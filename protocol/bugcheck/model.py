"""What a row of the bug check tables is made of: kinds of parameters, parameters, subcases, bug checks.

The words are ours; numbers, names and what each parameter holds are those Microsoft published. Where nothing is
published (or not known to us), a parameter is RESERVED: it is shown, never interpreted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["RESERVED", "BugCheck", "Parameter", "ParameterKind", "Subcase", "bug", "case", "parameters_of"]


class ParameterKind(enum.Enum):
    """What sort of thing a parameter is, as far as a program can use it. Call a kind with words to get a parameter."""

    VALUE = "value"
    COUNT = "count"
    SIZE = "size in bytes"
    FLAGS = "flags"
    SUBCODE = "subcode"
    ADDRESS = "address"
    PHYSICAL_ADDRESS = "physical address"
    CODE_ADDRESS = "code address"
    PAGE_FRAME = "page frame number"
    PTE = "page table entry's address"
    IRQL = "IRQL"
    ACCESS = "access, by bits: 1 write, 8 execute"
    PAGE_ACCESS = "access of a page fault"
    NTSTATUS = "NTSTATUS"
    EXCEPTION_CODE = "exception code"
    EXCEPTION_RECORD = "EXCEPTION_RECORD's address"
    CONTEXT_RECORD = "CONTEXT's address"
    TRAP_FRAME = "trap frame's address"
    THREAD = "thread object's address"
    PROCESS = "process object's address"
    OBJECT = "object's address"
    DEVICE_OBJECT = "device object's address"
    DRIVER_OBJECT = "driver object's address"
    IRP = "IRP's address"
    MDL = "MDL's address"
    UNICODE_STRING = "UNICODE_STRING's address"
    POOL_TAG = "pool tag"
    SOURCE_LINE = "source file in the high, line in the low 16 bits"
    RESERVED = "reserved"

    def __call__(self, words: str) -> Parameter:
        """A parameter of this kind, described by these words."""
        return Parameter(words, self)


@dataclass(frozen=True, slots=True)
class Parameter:
    """What one of the four parameters means."""

    words: str
    kind: ParameterKind = ParameterKind.VALUE


RESERVED = Parameter("reserved, or not known", ParameterKind.RESERVED)


@dataclass(frozen=True, slots=True)
class Subcase:
    """What a bug check means when its first parameter is `value`, or lies between `value` and `last` inclusive.

    `parameters` are the second to the fourth; None where they are those of the bug check itself.
    """

    value: int
    last: int
    meaning: str
    parameters: tuple[Parameter, Parameter, Parameter] | None


@dataclass(frozen=True, slots=True)
class BugCheck:
    """A bug check code: its name, what happened, what the four parameters are. `aliases` are other published names."""

    code: int
    name: str
    meaning: str
    parameters: tuple[Parameter, Parameter, Parameter, Parameter]
    subcases: tuple[Subcase, ...] = ()
    aliases: tuple[str, ...] = ()

    def subcase(self, parameter1: int) -> Subcase | None:
        """The subcase that this first parameter selects; None where it selects none."""
        for subcase in self.subcases:
            if subcase.value <= parameter1 <= subcase.last:
                return subcase
        return None


def parameters_of(found: BugCheck | None, parameter1: int) -> tuple[Parameter, Parameter, Parameter, Parameter]:
    """What the four parameters mean when the first is this; RESERVED, all of them, of a code that nobody knows."""
    if found is None:
        return (RESERVED, RESERVED, RESERVED, RESERVED)
    subcase = found.subcase(parameter1)
    if subcase is None or subcase.parameters is None:
        return found.parameters
    return (found.parameters[0], *subcase.parameters)


def bug(
    code: int,
    name: str,
    meaning: str,
    *parameters: Parameter,
    cases: tuple[Subcase, ...] = (),
    aliases: tuple[str, ...] = (),
) -> BugCheck:
    """One row of a table; parameters that are not given are RESERVED."""
    p1, p2, p3, p4 = (*parameters, *[RESERVED] * (4 - len(parameters)))
    return BugCheck(code, name, meaning, (p1, p2, p3, p4), cases, aliases)


def case(value: int, meaning: str, *parameters: Parameter, last: int | None = None) -> Subcase:
    """One subcase; `parameters` are the second to the fourth, none at all where they are those of the bug check."""
    through = value if last is None else last
    if not parameters:
        return Subcase(value, through, meaning, None)
    p2, p3, p4 = (*parameters, *[RESERVED] * (3 - len(parameters)))
    return Subcase(value, through, meaning, (p2, p3, p4))
