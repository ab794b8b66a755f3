"""Bug checks 0x120 to 0x13F."""

from __future__ import annotations

from .fast_fail import FAST_FAILS
from .model import BugCheck, bug, case
from .model import ParameterKind as K

__all__ = ["CODES"]

_DEPENDS = (K.VALUE("depends on the first"),) * 3
_ITEM = (K.ADDRESS("work item's parameter"), K.ADDRESS("work item"))
_MACHINE_CHECK = (
    K.ADDRESS("WHEA_ERROR_RECORD"),
    K.VALUE("high 32 bits of the bank's status"),
    K.VALUE("low 32 bits of the bank's status"),
)
_RECORD = (K.ADDRESS("WHEA_ERROR_RECORD"),)
_SOURCES = {
    0x01: "A corrected machine check.",
    0x02: "A corrected error of the platform.",
    0x03: "A non-maskable interrupt.",
    0x04: "An error of PCI Express that cannot be corrected.",
    0x05: "A generic hardware error that the firmware described.",
    0x06: "An INIT of an Itanium.",
    0x07: "An error from before the last restart, which the firmware kept.",
    0x08: "A generic error, told by a system control interrupt of ACPI.",
    0x09: "A machine check of an Itanium.",
    0x0A: "A corrected machine check of an Itanium.",
    0x0B: "A corrected error of the platform of an Itanium.",
    0x0C: "A generic hardware error that the firmware described (version 2).",
    0x0D: "A generic error (version 2), told by a system control interrupt of ACPI.",
    0x0E: "The baseboard management controller.",
    0x0F: "Persistent memory.",
    0x10: "A device driver.",
    0x11: "A synchronous external abort of an ARM processor.",
    0x12: "A system error interrupt of an ARM processor.",
}

CODES: tuple[BugCheck, ...] = (
    bug(
        0x120,
        "BITLOCKER_FATAL_ERROR",
        "BitLocker met an error that it cannot recover from.",
        K.SUBCODE("error"),
        *_DEPENDS,
    ),
    bug(
        0x121,
        "DRIVER_VIOLATION",
        "A driver does what it must not.",
        K.SUBCODE("violation"),
        *_DEPENDS[:2],
    ),
    bug(
        0x122,
        "WHEA_INTERNAL_ERROR",
        "The architecture for hardware errors failed itself, often from wrong firmware tables.",
        K.SUBCODE("where it failed"),
        *_DEPENDS,
    ),
    bug(
        0x123,
        "CRYPTO_SELF_TEST_FAILURE",
        "The cryptographic library's test of itself failed.",
        K.VALUE("what failed"),
    ),
    bug(
        0x124,
        "WHEA_UNCORRECTABLE_ERROR",
        "The hardware reported an error that cannot be corrected.",
        K.SUBCODE("source of the error"),
        *_DEPENDS,
        cases=(
            case(0x00, "A machine check exception.", *_MACHINE_CHECK),
            *[case(source, words, *_RECORD) for source, words in _SOURCES.items()],
        ),
    ),
    bug(
        0x125,
        "NMR_INVALID_STATE",
        "The registrar of network modules found its state invalid.",
        K.SUBCODE("what is wrong"),
        *_DEPENDS,
    ),
    bug(
        0x126,
        "NETIO_INVALID_POOL_CALLER",
        "A caller of the network stack's memory pool did what it must not.",
        K.SUBCODE("violation"),
        *_DEPENDS,
    ),
    bug(
        0x127,
        "PAGE_NOT_ZERO",
        "A page that should be all zeroes is not: bad memory, or a device's stray write.",
        K.ADDRESS("page"),
        K.PAGE_FRAME("its page frame"),
    ),
    bug(
        0x128,
        "WORKER_THREAD_RETURNED_WITH_BAD_IO_PRIORITY",
        "A work item returned with another I/O priority.",
        K.CODE_ADDRESS("worker routine"),
        K.VALUE("I/O priority now"),
        *_ITEM,
    ),
    bug(
        0x129,
        "WORKER_THREAD_RETURNED_WITH_BAD_PAGING_IO_PRIORITY",
        "A work item returned with another paging I/O priority.",
        K.CODE_ADDRESS("worker routine"),
        K.VALUE("paging I/O priority now"),
        *_ITEM,
    ),
    bug(
        0x12A,
        "MUI_NO_VALID_SYSTEM_LANGUAGE",
        "Windows found no language that it can show.",
        K.SUBCODE("where it looked"),
        K.NTSTATUS("why"),
    ),
    bug(
        0x12B,
        "FAULTY_HARDWARE_CORRUPTED_PAGE",
        "A single bit of a page changed that nobody wrote: bad memory.",
        K.VALUE("address of the page, or NTSTATUS of decompressing it"),
        K.VALUE("physical page, or depends on the first"),
        K.VALUE("depends on the first"),
        K.VALUE("depends on the first"),
    ),
    bug(
        0x12C,
        "EXFAT_FILE_SYSTEM",
        "The exFAT file system failed.",
        K.SOURCE_LINE("where in its source"),
        K.EXCEPTION_RECORD("exception record, if it came through the driver's exception filter"),
        K.CONTEXT_RECORD("context record, if it came through the driver's exception filter"),
    ),
    bug(
        0x12D,
        "VOLSNAP_OVERLAPPED_TABLE_ACCESS",
        "Two tables of the volume snapshot driver were touched at once.",
    ),
    bug(0x12E, "INVALID_MDL_RANGE", "A driver asked for a range of an MDL that is not in it."),
    bug(
        0x12F,
        "VHD_BOOT_INITIALIZATION_FAILED",
        "Booting from a virtual disk failed.",
        K.SUBCODE("which step"),
        K.NTSTATUS("why"),
    ),
    bug(
        0x130,
        "DYNAMIC_ADD_PROCESSOR_MISMATCH",
        "A processor was added that does not fit those that are there.",
    ),
    bug(
        0x131,
        "INVALID_EXTENDED_PROCESSOR_STATE",
        "Extended processor state was saved or restored with features or at a time that is not allowed.",
        K.SUBCODE("what is wrong"),
    ),
    bug(
        0x132,
        "RESOURCE_OWNER_POINTER_INVALID",
        "A pointer was given as owner of a resource that is not one.",
        K.ADDRESS("resource"),
        K.ADDRESS("owner pointer"),
    ),
    bug(
        0x133,
        "DPC_WATCHDOG_VIOLATION",
        "A processor stayed in DPCs, or at DISPATCH_LEVEL or above, for too long.",
        K.SUBCODE("which watchdog"),
        K.VALUE("time spent, in ticks"),
        K.VALUE("limit, in ticks"),
        K.ADDRESS("DPC_WATCHDOG_GLOBAL_TRIAGE_BLOCK"),
        cases=(
            case(0, "One DPC or interrupt routine took too long."),
            case(
                1,
                "The processor was too long at DISPATCH_LEVEL or above, all together.",
                K.VALUE("limit, in ticks"),
                K.ADDRESS("DPC_WATCHDOG_GLOBAL_TRIAGE_BLOCK"),
            ),
        ),
    ),
    bug(
        0x134,
        "DRIVE_EXTENDER",
        "The drive extender failed at something that it cannot recover from.",
        K.SUBCODE("where it failed"),
    ),
    bug(
        0x135,
        "REGISTRY_FILTER_DRIVER_EXCEPTION",
        "A driver's registry callback raised an exception that nothing handled.",
        K.EXCEPTION_CODE("exception"),
        K.CONTEXT_RECORD("context record"),
        K.CODE_ADDRESS("callback routine"),
        K.ADDRESS("what the callback was given"),
    ),
    bug(
        0x136,
        "VHD_BOOT_HOST_VOLUME_NOT_ENOUGH_SPACE",
        "The volume that holds the virtual disk booted from has too little room to expand it.",
        K.NTSTATUS("why"),
    ),
    bug(0x137, "WIN32K_HANDLE_MANAGER", "The handle manager of the window system found a corrupt handle entry."),
    bug(
        0x138,
        "GPIO_CONTROLLER_DRIVER_ERROR",
        "The driver class of GPIO controllers found that a driver does what it must not.",
        K.SUBCODE("violation"),
        *_DEPENDS,
    ),
    bug(
        0x139,
        "KERNEL_SECURITY_CHECK_FAILURE",
        "The kernel or a driver found a structure corrupt, and stopped at once (a fast fail).",
        K.SUBCODE("what was found corrupt"),
        K.TRAP_FRAME("trap frame"),
        K.EXCEPTION_RECORD("exception record"),
        cases=FAST_FAILS,
    ),
    bug(
        0x13A,
        "KERNEL_MODE_HEAP_CORRUPTION",
        "The kernel's heap manager, which pool comes from, found a block corrupt.",
        K.SUBCODE("kind of corruption"),
        K.ADDRESS("heap"),
        K.ADDRESS("where the corruption was found"),
    ),
    bug(
        0x13B,
        "PASSIVE_INTERRUPT_ERROR",
        "An interrupt that is handled at PASSIVE_LEVEL was used wrongly.",
        K.SUBCODE("violation: 1 acquired its lock above APC_LEVEL"),
        K.ADDRESS("interrupt object"),
        K.VALUE("depends on the first"),
    ),
    bug(
        0x13C,
        "INVALID_IO_BOOST_STATE",
        "A thread ended with its I/O priority still raised.",
        K.THREAD("thread"),
        K.VALUE("state of the boost"),
    ),
    bug(
        0x13D,
        "CRITICAL_INITIALIZATION_FAILURE",
        "An essential part of the system could not be started.",
    ),
)
