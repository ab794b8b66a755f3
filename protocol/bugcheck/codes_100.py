"""Bug checks 0x100 to 0x11F."""

from __future__ import annotations

from .model import RESERVED, BugCheck, bug, case
from .model import ParameterKind as K

__all__ = ["CODES"]

_DEPENDS = (K.VALUE("depends on the first"),) * 3
_DISPLAY_HANG = (
    K.ADDRESS("recovery context of the display driver model"),
    K.CODE_ADDRESS("inside the display driver to blame"),
    K.NTSTATUS("error of the last operation that failed, if any"),
    K.VALUE("depends on the version"),
)
_FRAMEWORK = {
    0x01: "A power callback of the driver did not end in time.",
    0x02: "A lock was acquired that the thread holds already.",
    0x03: "The framework's verifier found a mistake that cannot be passed over.",
    0x04: "A parameter that is required was NULL.",
    0x05: "A handle was given that is not valid, or of the wrong type.",
    0x06: "A request was handled wrongly.",
    0x07: "An object was used wrongly, mostly after it had been deleted.",
    0x08: "A DMA transaction was handled wrongly.",
    0x09: "An interrupt was set up wrongly.",
    0x0A: "A queue was used wrongly.",
    0x0B: "A lock was acquired or released in a way that is not allowed.",
    0x0C: "Plug and Play was handled wrongly.",
    0x0D: "A device has more than one owner of its power policy.",
}

CODES: tuple[BugCheck, ...] = (
    bug(
        0x100,
        "LOADER_BLOCK_MISMATCH",
        "The loader and the kernel do not belong together.",
        K.SUBCODE("what differs: 3 size or version of the loader block"),
        *_DEPENDS,
    ),
    bug(
        0x101,
        "CLOCK_WATCHDOG_TIMEOUT",
        "A processor has not answered the clock interrupt: it hangs, or runs with interrupts off.",
        K.VALUE("limit, in clock ticks"),
        K.VALUE("0"),
        K.ADDRESS("processor control block (PRCB) of the processor that hangs"),
        K.COUNT("number of that processor"),
    ),
    bug(
        0x102,
        "DPC_WATCHDOG_TIMEOUT",
        "A DPC routine did not end in time.",
        K.VALUE("limit, in clock ticks"),
        K.VALUE("0"),
        K.ADDRESS("processor control block (PRCB) of the processor that hangs"),
        K.COUNT("number of that processor"),
    ),
    bug(
        0x103,
        "MUP_FILE_SYSTEM",
        "The multiple UNC provider found its data or the data given to it inconsistent.",
        K.SUBCODE("what is inconsistent"),
        *_DEPENDS,
    ),
    bug(
        0x104,
        "AGP_INVALID_ACCESS",
        "The graphics adapter wrote to memory that it has not reserved.",
        K.VALUE("offset, in 32-bit words, of the first damage"),
    ),
    bug(
        0x105,
        "AGP_GART_CORRUPTION",
        "The address translation table of the graphics port is corrupt.",
        K.ADDRESS("table"),
        K.VALUE("offset of the damage in it"),
        K.ADDRESS("cached copy of the table"),
    ),
    bug(
        0x106,
        "AGP_ILLEGALLY_REPROGRAMMED",
        "Someone reprogrammed the graphics port without leave.",
        K.VALUE("command as set"),
        K.VALUE("command as found"),
    ),
    bug(
        0x108,
        "THIRD_PARTY_FILE_SYSTEM_FAILURE",
        "A file system or filter that is not Microsoft's failed.",
        K.VALUE("which one: 1 Polyserve"),
        K.EXCEPTION_RECORD("exception record"),
        K.CONTEXT_RECORD("context record"),
        K.VALUE("depends on the file system"),
    ),
    bug(
        0x109,
        "CRITICAL_STRUCTURE_CORRUPTION",
        "The kernel's code or a structure that must not change has changed: bad memory, a driver, or a debugger's "
        "breakpoint set after the system was booted without one.",
        RESERVED,
        RESERVED,
        K.VALUE("depends on the fourth, often the address of what changed"),
        K.SUBCODE(
            "what changed: 0 data, 1 code or .pdata, 2 IDT, 3 GDT, 4 and 5 list of processes, 6 debug routine, "
            "7 model-specific register; there are more"
        ),
    ),
    bug(0x10A, "APP_TAGGING_INITIALIZATION_FAILED", "Tagging of applications could not be started."),
    bug(
        0x10C,
        "FSRTL_EXTRA_CREATE_PARAMETER_VIOLATION",
        "Extra parameters of a file's opening were used against the rules.",
        K.SUBCODE("violation"),
        K.ADDRESS("extra parameter"),
        K.VALUE("depends on the first"),
    ),
    bug(
        0x10D,
        "WDF_VIOLATION",
        "A driver built on the driver framework (KMDF) does what it must not.",
        K.SUBCODE("violation"),
        *_DEPENDS,
        cases=tuple(case(violation, words) for violation, words in _FRAMEWORK.items()),
    ),
    bug(
        0x10E,
        "VIDEO_MEMORY_MANAGEMENT_INTERNAL",
        "The manager of video memory met a state that it cannot recover from, mostly from a display driver.",
        K.SUBCODE("what happened"),
        *_DEPENDS,
    ),
    bug(
        0x10F,
        "RESOURCE_MANAGER_EXCEPTION_NOT_HANDLED",
        "A resource manager of kernel transactions raised an exception that nothing handled.",
        K.EXCEPTION_RECORD("exception record"),
        K.CONTEXT_RECORD("context record"),
        K.CODE_ADDRESS("where the exception occurred"),
        K.ADDRESS("resource manager"),
    ),
    bug(0x111, "RECURSIVE_NMI", "A non-maskable interrupt occurred while one was being handled."),
    bug(
        0x112,
        "MSRPC_STATE_VIOLATION",
        "The driver of remote procedure calls found a caller in a state in which it must not be.",
        K.SUBCODE("violation"),
        *_DEPENDS,
    ),
    bug(
        0x113,
        "VIDEO_DXGKRNL_FATAL_ERROR",
        "The graphics kernel found a violation that it cannot recover from.",
        K.SUBCODE("violation"),
        *_DEPENDS,
    ),
    bug(
        0x114,
        "VIDEO_SHADOW_DRIVER_FATAL_ERROR",
        "A shadow display driver found a violation that it cannot recover from.",
    ),
    bug(0x115, "AGP_INTERNAL", "The graphics port found a violation that it cannot recover from."),
    bug(
        0x116,
        "VIDEO_TDR_FAILURE",
        "The graphics adapter hung, and resetting its driver did not help.",
        *_DISPLAY_HANG,
    ),
    bug(
        0x117,
        "VIDEO_TDR_TIMEOUT_DETECTED",
        "The graphics adapter did not answer in time; its driver was reset (a live dump).",
        *_DISPLAY_HANG,
    ),
    bug(
        0x119,
        "VIDEO_SCHEDULER_INTERNAL_ERROR",
        "The scheduler of the graphics adapter found a violation that it cannot recover from.",
        K.SUBCODE("violation"),
        *_DEPENDS,
        cases=(
            case(0x01, "The driver reported a fence that is not valid."),
            case(0x02, "The driver failed to submit a command, which it may not."),
            case(0x03, "The driver failed a patch, which it may not."),
            case(0x04, "The driver reported a flip that is not possible."),
        ),
    ),
    bug(
        0x11A,
        "EM_INITIALIZATION_ERROR",
        "The engine of hardware errata could not be started.",
        aliases=("EM_INITIALIZATION_FAILURE",),
    ),
    bug(
        0x11B,
        "DRIVER_RETURNED_HOLDING_CANCEL_LOCK",
        "A driver's cancel routine returned with the global cancel lock held.",
        K.IRP("IRP that was cancelled"),
        K.CODE_ADDRESS("cancel routine"),
    ),
    bug(
        0x11C,
        "ATTEMPTED_WRITE_TO_CM_PROTECTED_STORAGE",
        "Someone wrote to memory of the registry that may only be read.",
        K.ADDRESS("memory that was to be written"),
        K.VALUE("contents of its page table entry"),
    ),
    bug(
        0x11D,
        "EVENT_TRACING_FATAL_ERROR",
        "Event tracing met an error that it cannot recover from.",
        K.SUBCODE("error"),
        *_DEPENDS,
    ),
    bug(
        0x11E,
        "TOO_MANY_RECURSIVE_FAULTS",
        "Faults upon faults filled the stack, and there was no end of them.",
    ),
    bug(
        0x11F,
        "INVALID_DRIVER_HANDLE",
        "Someone closed the handle by which the kernel holds a driver object.",
        K.VALUE("handle"),
        K.DRIVER_OBJECT("driver object that it should be"),
    ),
)
