"""Exceptions in words: what an EXCEPTION_RECORD says, or what a bug check's parameters say of one."""

from __future__ import annotations

from protocol.address import format_address
from protocol.arch import Architecture
from protocol.bugcheck.fast_fail import FAST_FAILS
from protocol.dumpfile.exception import ExceptionRecord
from protocol.ntstatus import exception_words, status_name

from .model import ExceptionFact
from .names import Names

__all__ = ["exception_fact", "exception_in_words"]

_ACCESS_VIOLATION, _IN_PAGE_ERROR, _STACK_BUFFER_OVERRUN = 0xC0000005, 0xC0000006, 0xC0000409
_VERBS = {0: "read", 1: "wrote to", 8: "executed"}
_NOWHERE = 0xFFFF_FFFF_FFFF_FFFF
_NULL_PAGE = 0x10000
"""Below it nothing is ever mapped: an address there is a null pointer and an offset."""


async def exception_fact(record: ExceptionRecord, names: Names, architecture: Architecture) -> ExceptionFact:
    """A record in words, and the place that it names."""
    words = exception_in_words(record.code, record.parameters, architecture)
    return ExceptionFact(record.code, words, await names.place(record.address), record.parameters)


def exception_in_words(code: int, parameters: tuple[int, ...], architecture: Architecture) -> str:
    """Its name, and what happened as exactly as its parameters tell."""
    code &= 0xFFFF_FFFF
    name = status_name(code) or f"{code:#010x}"
    what = exception_words(code) or "an exception that is not one of the usual"
    if code in (_ACCESS_VIOLATION, _IN_PAGE_ERROR) and len(parameters) >= 2:
        what = _access(parameters[0], parameters[1], architecture)
        if code == _IN_PAGE_ERROR:
            what += ", and the page could not be read in"
            if len(parameters) >= 3 and (reason := status_name(parameters[2])):
                what += f": {reason}"
    elif code == _STACK_BUFFER_OVERRUN and parameters:
        sub = next((one for one in FAST_FAILS if one.value <= parameters[0] <= one.last), None)
        what = f"fast fail {parameters[0]:#x}" + (f": {sub.meaning}" if sub is not None else "")
    return f"{name}: {what}"


def _access(kind: int, address: int, architecture: Architecture) -> str:
    verb = _VERBS.get(kind)
    if verb is None:
        return f"it touched {format_address(address)} (access {kind:#x})"
    if address == _NOWHERE and architecture.pointer_size == 8:
        # A processor does not tell the address when it is not canonical.
        return f"it {verb} an address that is not canonical, or not told"
    hint = ""
    if address < _NULL_PAGE:
        hint = ": a null pointer" + (f" and an offset of {address:#x}" if address else "")
    elif not architecture.paging.is_canonical(address):
        hint = ": not canonical"
    elif not architecture.is_kernel_address(address):
        hint = ": user memory"
    return f"it {verb} {format_address(address)}, which it must not{hint}"
