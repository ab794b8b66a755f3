"""What a row of the bug check tables is made of: kinds of parameters, parameters, subcases, bug checks.

The words are ours; numbers, names and what each parameter holds are those Microsoft published. Where nothing is
published (or not known to us), a parameter is RESERVED: it is shown, never interpreted.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
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
    """What a bug check means when the parameter that selects is `value`, or between `value` and `last` inclusive.

    `parameters` are the other three; None where they are those of the bug check itself.
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
    selector: int = 1
    """Number of the parameter that selects a subcase: 1 to 4."""
    asked_for: bool = False
    """Nothing failed: somebody wanted the crash or the dump."""

    def subcase(self, values: Sequence[int]) -> Subcase | None:
        """The subcase that these four values select; None where they select none."""
        selecting = values[self.selector - 1]
        for subcase in self.subcases:
            if subcase.value <= selecting <= subcase.last:
                return subcase
        return None


def parameters_of(found: BugCheck | None, values: Sequence[int]) -> tuple[Parameter, Parameter, Parameter, Parameter]:
    """What the four parameters mean with these values; RESERVED, all of them, of a code that nobody knows."""
    if found is None:
        return (RESERVED, RESERVED, RESERVED, RESERVED)
    subcase = found.subcase(values)
    if subcase is None or subcase.parameters is None:
        return found.parameters
    at, meanings = found.selector - 1, list(subcase.parameters)
    meanings.insert(at, found.parameters[at])
    p1, p2, p3, p4 = meanings
    return (p1, p2, p3, p4)


def bug(
    code: int,
    name: str,
    meaning: str,
    *parameters: Parameter,
    cases: tuple[Subcase, ...] = (),
    aliases: tuple[str, ...] = (),
    selector: int = 1,
    asked_for: bool = False,
) -> BugCheck:
    """One row of a table; parameters that are not given are RESERVED."""
    p1, p2, p3, p4 = (*parameters, *[RESERVED] * (4 - len(parameters)))
    return BugCheck(code, name, meaning, (p1, p2, p3, p4), cases, aliases, selector, asked_for)


def case(value: int, meaning: str, *parameters: Parameter, last: int | None = None) -> Subcase:
    """One subcase; `parameters` are those that do not select it, none at all where they are those of the bug check."""
    through = value if last is None else last
    if not parameters:
        return Subcase(value, through, meaning, None)
    p2, p3, p4 = (*parameters, *[RESERVED] * (3 - len(parameters)))
    return Subcase(value, through, meaning, (p2, p3, p4))
