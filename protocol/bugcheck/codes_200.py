"""Bug checks from 0x200 on: verifiers, the hypervisor, those that carry a modifier, and those that are an NTSTATUS."""

from __future__ import annotations

from dataclasses import replace

from . import codes_0c0, codes_0e0, codes_040, codes_080
from .model import BugCheck, bug
from .model import ParameterKind as K

__all__ = ["CODES"]

_DEPENDS = (K.VALUE("depends on the first"),) * 3
_BY_ITS_NAME = "Microsoft publishes no more than the name, by which"
_HEX_CHOICE = "chosen by whoever crashed the machine"
_MODIFIED = (0x50, 0x7E, 0x7F, 0x8E, 0xD6, 0xEA)
_BASES = {row.code: row for table in (codes_040, codes_080, codes_0c0, codes_0e0) for row in table.CODES}

CODES: tuple[BugCheck, ...] = (
    bug(
        0xBFE,
        "BC_BLUETOOTH_VERIFIER_FAULT",
        "A Bluetooth driver does what it must not.",
        K.SUBCODE("violation"),
        *_DEPENDS,
    ),
    bug(
        0xBFF,
        "BC_BTHMINI_VERIFIER_FAULT",
        "A Bluetooth miniport driver does what it must not.",
        K.SUBCODE("violation"),
        *_DEPENDS,
    ),
    bug(
        0x11C8,
        "MANUALLY_INITIATED_POWER_BUTTON_HOLD_LIVE_DUMP",
        f"{_BY_ITS_NAME} someone held the power button down, and a live dump was written.",
        asked_for=True,
    ),
    bug(
        0x21C8,
        "MANUALLY_INITIATED_BLACKSCREEN_HOTKEY_LIVE_DUMP",
        f"{_BY_ITS_NAME} someone pressed the keys for a black screen, and a live dump was written.",
        asked_for=True,
    ),
    bug(
        0x20001,
        "HYPERVISOR_ERROR",
        "The hypervisor met an error that it cannot recover from.",
        K.SUBCODE("failure"),
        *_DEPENDS,
    ),
    bug(
        0x30006,
        "XBOX_MANUALLY_INITIATED_CRASH",
        f"{_BY_ITS_NAME} someone crashed the machine on purpose.",
        asked_for=True,
    ),
    *(replace(_BASES[code], code=0x10000000 | code, name=f"{_BASES[code].name}_M") for code in _MODIFIED),
    bug(
        0x4000008A,
        "THREAD_TERMINATE_HELD_MUTEX",
        "A driver acquired a mutex on a thread that then ended.",
        K.THREAD("thread"),
        K.ADDRESS("mutex"),
    ),
    bug(
        0x400000AD,
        "VIDEO_DRIVER_DEBUG_REPORT_REQUEST",
        "Nothing failed: the video port made a small dump on behalf of a display driver.",
        *(K.VALUE("chosen by the driver"),) * 4,
        asked_for=True,
    ),
    bug(
        0xC0000218,
        "STATUS_CANNOT_LOAD_REGISTRY_FILE",
        "A hive of the registry could not be loaded: its file is missing or damaged.",
        K.ADDRESS("name of the hive's file"),
    ),
    bug(
        0xC000021A,
        "WINLOGON_FATAL_ERROR",
        "A process of user mode that the system cannot live without (winlogon, csrss or smss) ended.",
        K.ADDRESS("text that names the process"),
        K.NTSTATUS("why"),
        aliases=("STATUS_SYSTEM_PROCESS_TERMINATED",),
    ),
    bug(
        0xC0000221,
        "STATUS_IMAGE_CHECKSUM_MISMATCH",
        "A driver or system library is damaged: its checksum is wrong.",
        K.ADDRESS("name of the file"),
    ),
    bug(
        0xDEADDEAD,
        "MANUALLY_INITIATED_CRASH1",
        "Someone crashed the machine on purpose, from a debugger, the keyboard or a tool.",
        *(K.VALUE(_HEX_CHOICE),) * 4,
        asked_for=True,
    ),
)
