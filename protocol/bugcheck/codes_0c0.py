"""Bug checks 0xC0 to 0xDF."""

from __future__ import annotations

from .model import RESERVED, BugCheck, bug, case
from .model import ParameterKind as K
from .verifier import IO_VIOLATIONS, VIOLATIONS

__all__ = ["CODES"]

_DEPENDS = (K.VALUE("depends on the first"),) * 3
_POOL_CORRUPTED = (
    K.ADDRESS("memory that was touched"),
    K.IRQL("at the time"),
    K.ACCESS("what was tried"),
    K.CODE_ADDRESS("instruction that did it"),
)
_PAGE_FAULT = (
    K.ADDRESS("memory that was touched"),
    K.PAGE_ACCESS("what was tried"),
    K.CODE_ADDRESS("instruction that did it, if known"),
)

CODES: tuple[BugCheck, ...] = (
    bug(
        0xC1,
        "SPECIAL_POOL_DETECTED_MEMORY_CORRUPTION",
        "A driver wrote to a part of its special pool page that it does not own, or used special pool wrongly.",
        K.ADDRESS("address that the driver tried to free"),
        K.VALUE("depends on the fourth"),
        K.VALUE("depends on the fourth"),
        K.SUBCODE(
            "0x20 to 0x2F: a bad address, or bytes around the block were written; "
            "0x30 and 0x31: allocated or freed at the wrong IRQL"
        ),
        cases=(
            case(
                0x30,
                "It asked for pool at an IRQL at which it must not.",
                K.IRQL("at the time"),
                K.VALUE("pool type"),
                K.SIZE("size"),
            ),
            case(
                0x31,
                "It freed pool at an IRQL at which it must not.",
                K.IRQL("at the time"),
                K.VALUE("pool type"),
                K.ADDRESS("block"),
            ),
        ),
        selector=4,
    ),
    bug(
        0xC2,
        "BAD_POOL_CALLER",
        "A driver made a request to the pool that is not allowed.",
        K.SUBCODE("violation"),
        *_DEPENDS,
        cases=(
            case(0x00, "It asked for 0 bytes.", RESERVED, K.VALUE("pool type"), K.POOL_TAG("pool tag")),
            *[
                case(
                    subcode, "The header of the block is corrupt.", K.ADDRESS("header"), K.VALUE("part of its contents")
                )
                for subcode in (0x01, 0x02, 0x04)
            ],
            case(
                0x06,
                "It freed a block that is free already.",
                RESERVED,
                K.ADDRESS("header"),
                K.VALUE("part of its contents"),
            ),
            case(
                0x07,
                "It freed a block that is free already.",
                RESERVED,
                K.VALUE("part of the header"),
                K.ADDRESS("block"),
            ),
            case(
                0x08,
                "It asked for pool at an IRQL at which it must not.",
                K.IRQL("at the time"),
                K.VALUE("pool type"),
                K.SIZE("size"),
            ),
            case(
                0x09,
                "It freed pool at an IRQL at which it must not.",
                K.IRQL("at the time"),
                K.VALUE("pool type"),
                K.ADDRESS("block"),
            ),
            case(
                0x0A,
                "It freed a block with the wrong tag.",
                K.ADDRESS("block"),
                K.POOL_TAG("tag of the block"),
                K.POOL_TAG("tag with which it was freed"),
            ),
            case(0x0B, "It gave back quota on a corrupt block.", K.ADDRESS("block")),
            case(0x40, "It freed an address of user mode.", K.ADDRESS("address"), K.ADDRESS("start of system space")),
            case(0x41, "It freed nonpaged pool that is not allocated.", K.ADDRESS("address"), K.PAGE_FRAME("its page")),
            case(0x42, "It freed what was never in a pool.", K.ADDRESS("address")),
            case(0x43, "It freed what was never in a pool.", K.ADDRESS("address")),
            case(0x44, "It freed nonpaged pool that is not allocated.", K.ADDRESS("address")),
            case(0x46, "It freed an address that is not in a pool.", K.ADDRESS("address")),
            case(0x47, "It freed an address that is not in a pool.", K.ADDRESS("address")),
            case(0x48, "It freed paged pool that is not allocated.", K.ADDRESS("address")),
            case(
                0x50,
                "It freed paged pool that is not allocated.",
                K.ADDRESS("address"),
                K.VALUE("offset in pages from the start of paged pool"),
                K.SIZE("size of paged pool"),
            ),
            case(
                0x99,
                "It freed an address that is not one of pool, or whose header is corrupt.",
                K.ADDRESS("address"),
            ),
            case(
                0x9B,
                "It asked for pool with tag 0.",
                K.VALUE("pool type"),
                K.SIZE("size"),
                K.CODE_ADDRESS("caller"),
            ),
            case(
                0x9D,
                "It asked for pool with a tag that is not valid.",
                K.POOL_TAG("tag"),
                K.VALUE("pool type"),
                K.CODE_ADDRESS("caller"),
            ),
        ),
    ),
    bug(
        0xC4,
        "DRIVER_VERIFIER_DETECTED_VIOLATION",
        "Driver Verifier caught a driver at something that it must not do.",
        K.SUBCODE("violation"),
        *_DEPENDS,
        cases=VIOLATIONS,
    ),
    bug(
        0xC5,
        "DRIVER_CORRUPTED_EXPOOL",
        "Invalid memory was touched at too high an IRQL: a driver has corrupted the pool.",
        *_POOL_CORRUPTED,
    ),
    bug(
        0xC6,
        "DRIVER_CAUGHT_MODIFYING_FREED_POOL",
        "A driver touched pool that it had freed.",
        K.ADDRESS("memory that was touched"),
        K.VALUE("0: read, 1: write"),
        K.VALUE("0: kernel mode, 1: user mode"),
    ),
    bug(
        0xC7,
        "TIMER_OR_DPC_INVALID",
        "A timer or DPC was found in memory where none may be: its memory was freed before it was cancelled.",
        K.SUBCODE("what was found"),
        *_DEPENDS,
        cases=(
            case(0, "A timer object.", K.ADDRESS("timer"), K.ADDRESS("start of the range"), K.ADDRESS("its end")),
            case(1, "A DPC object.", K.ADDRESS("DPC"), K.ADDRESS("start of the range"), K.ADDRESS("its end")),
            case(
                2,
                "A DPC routine.",
                K.CODE_ADDRESS("DPC routine"),
                K.ADDRESS("start of the range"),
                K.ADDRESS("its end"),
            ),
            case(
                3,
                "A DPC for a processor that does not exist.",
                K.ADDRESS("DPC"),
                K.COUNT("number of the processor"),
                K.COUNT("processors in the system"),
            ),
            case(
                4,
                "A DPC routine returned with threaded APCs or preemption in another state.",
                K.CODE_ADDRESS("DPC routine"),
                K.VALUE("APC disable count before"),
                K.VALUE("APC disable count after"),
            ),
        ),
    ),
    bug(
        0xC8,
        "IRQL_UNEXPECTED_VALUE",
        "The IRQL is not what it should be.",
        K.VALUE("IRQL found (bits 16 to 23), expected (8 to 15), and a number of the place (0 to 7)"),
        K.VALUE("depends on the place, often a routine that was called"),
        K.VALUE("depends on the place"),
        K.VALUE("depends on the place"),
    ),
    bug(
        0xC9,
        "DRIVER_VERIFIER_IOMANAGER_VIOLATION",
        "Driver Verifier caught a driver at a wrong use of the I/O manager.",
        K.SUBCODE("violation"),
        *_DEPENDS,
        cases=IO_VIOLATIONS,
    ),
    bug(
        0xCA,
        "PNP_DETECTED_FATAL_ERROR",
        "Plug and Play found a driver's mistake that it cannot live with.",
        K.SUBCODE("mistake"),
        *_DEPENDS,
        cases=(
            case(0x01, "A driver reported the same device twice.", K.DEVICE_OBJECT("second"), K.DEVICE_OBJECT("first")),
            case(
                0x02, "A function was called with an object that is not a physical device.", K.DEVICE_OBJECT("object")
            ),
            case(
                0x03,
                "A device gave an identifier that is not valid.",
                K.DEVICE_OBJECT("device"),
                K.ADDRESS("identifier"),
                K.VALUE("0: device, 1: unique, 2: hardware, 3: compatible identifier"),
            ),
            case(0x04, "A device that is being deleted was reported to the bus.", K.DEVICE_OBJECT("device")),
            case(
                0x05, "A device object was freed that Plug and Play still has in its tree.", K.DEVICE_OBJECT("device")
            ),
        ),
    ),
    bug(
        0xCB,
        "DRIVER_LEFT_LOCKED_PAGES_IN_PROCESS",
        "A driver or the I/O manager did not unlock pages after an I/O.",
        K.CODE_ADDRESS("caller that locked them, if tracked"),
        K.CODE_ADDRESS("its caller, if tracked"),
        K.MDL("MDL with the pages"),
        K.COUNT("pages locked"),
    ),
    bug(0xCC, "PAGE_FAULT_IN_FREED_SPECIAL_POOL", "Pool was touched after it had been freed.", *_PAGE_FAULT),
    bug(
        0xCD,
        "PAGE_FAULT_BEYOND_END_OF_ALLOCATION",
        "Memory beyond the end of a pool block was touched.",
        *_PAGE_FAULT,
    ),
    bug(
        0xCE,
        "DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS",
        "A driver was unloaded while timers, DPCs, work items or threads of it were still to run.",
        *_PAGE_FAULT,
    ),
    bug(
        0xCF,
        "TERMINAL_SERVER_DRIVER_MADE_INCORRECT_MEMORY_REFERENCE",
        "A driver that is not made for terminal servers touched memory of a session that is not there.",
        *_PAGE_FAULT,
    ),
    bug(
        0xD0,
        "DRIVER_CORRUPTED_MMPOOL",
        "Invalid memory was touched at too high an IRQL: a driver has corrupted pool of the memory manager.",
        *_POOL_CORRUPTED,
    ),
    bug(
        0xD1,
        "DRIVER_IRQL_NOT_LESS_OR_EQUAL",
        "A driver touched paged or invalid memory at an IRQL at which it may not page fault.",
        *_POOL_CORRUPTED,
    ),
    bug(
        0xD2,
        "BUGCODE_ID_DRIVER",
        "A network driver failed (older systems; 0x7C later).",
        K.SUBCODE("violation"),
        *_DEPENDS,
    ),
    bug(
        0xD3,
        "DRIVER_PORTION_MUST_BE_NONPAGED",
        "A driver marked code or data as pageable that must not be, and touched it at too high an IRQL.",
        *_POOL_CORRUPTED,
    ),
    bug(
        0xD4,
        "SYSTEM_SCAN_AT_RAISED_IRQL_CAUGHT_IMPROPER_DRIVER_UNLOAD",
        "A driver was unloaded without cancelling what it had started, found while memory was scanned.",
        *_POOL_CORRUPTED,
    ),
    bug(
        0xD5,
        "DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL",
        "A driver touched pool that it had freed.",
        *_PAGE_FAULT,
    ),
    bug(
        0xD6,
        "DRIVER_PAGE_FAULT_BEYOND_END_OF_ALLOCATION",
        "A driver touched memory beyond the end of its pool block.",
        *_PAGE_FAULT,
    ),
    bug(
        0xD7,
        "DRIVER_UNMAPPING_INVALID_VIEW",
        "A driver unmapped an address where nothing is mapped.",
        K.ADDRESS("address to unmap"),
        K.VALUE("1: it is in system space, 0: in session space"),
    ),
    bug(
        0xD8,
        "DRIVER_USED_EXCESSIVE_PTES",
        "No page table entries are left for the system's own mappings, and one driver has most of them.",
        K.ADDRESS("name of that driver, if known"),
        K.COUNT("entries that it uses"),
        K.COUNT("entries free"),
        K.COUNT("entries in all"),
    ),
    bug(
        0xD9,
        "LOCKED_PAGES_TRACKER_CORRUPTION",
        "The lists that track locked pages are corrupt.",
        K.SUBCODE("what is wrong"),
        *_DEPENDS,
    ),
    bug(
        0xDA,
        "SYSTEM_PTE_MISUSE",
        "A driver released or used page table entries of the system wrongly, often by unmapping an MDL twice.",
        K.SUBCODE("what is wrong"),
        *_DEPENDS,
    ),
    bug(
        0xDB,
        "DRIVER_CORRUPTED_SYSPTES",
        "Invalid memory was touched at too high an IRQL: a driver has corrupted the system's page table entries.",
        *_POOL_CORRUPTED,
    ),
    bug(
        0xDC,
        "DRIVER_INVALID_STACK_ACCESS",
        "A driver touched memory below the stack pointer of a thread's kernel stack.",
    ),
    bug(
        0xDE,
        "POOL_CORRUPTION_IN_FILE_AREA",
        "A driver wrote over pool that holds pages on their way to the disk.",
    ),
    bug(
        0xDF,
        "IMPERSONATING_WORKER_THREAD",
        "A work item returned while its thread still impersonates someone.",
        K.CODE_ADDRESS("worker routine"),
        K.ADDRESS("its parameter"),
        K.ADDRESS("work item"),
    ),
)
