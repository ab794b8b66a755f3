"""Bug checks 0x140 to 0x17F. Those called LIVEDUMP write a dump, and the system goes on."""

from __future__ import annotations

from .model import RESERVED, BugCheck, bug
from .model import ParameterKind as K

__all__ = ["CODES"]

_DEPENDS = (K.VALUE("depends on the first"),) * 3
_DISPLAY_HANG = (
    K.ADDRESS("recovery context of the display driver model"),
    K.CODE_ADDRESS("inside the display driver to blame"),
)
_SOC = (
    K.ADDRESS("SOC_SUBSYSTEM_FAILURE_DETAILS"),
    RESERVED,
    RESERVED,
    K.ADDRESS("data of the maker, if any"),
)
_POWER_COORDINATOR = (K.VALUE("id of the component that hangs"), K.VALUE("kind of component, or of waiting"))
_CLUSTER = "A shared volume of a failover cluster"

CODES: tuple[BugCheck, ...] = (
    bug(0x140, "STORAGE_DEVICE_ABNORMALITY_DETECTED", "A storage device misbehaves, often by not answering for long."),
    bug(
        0x141,
        "VIDEO_ENGINE_TIMEOUT_DETECTED",
        "An engine of the graphics adapter did not answer in time; it was reset (a live dump).",
        *_DISPLAY_HANG,
    ),
    bug(
        0x142,
        "VIDEO_TDR_APPLICATION_BLOCKED",
        "A program was refused the graphics adapter because it made it hang too often.",
        *_DISPLAY_HANG[:1],
    ),
    bug(
        0x143,
        "PROCESSOR_DRIVER_INTERNAL",
        "The driver of the processors found its own data inconsistent.",
        K.SUBCODE("what is inconsistent"),
        *_DEPENDS,
    ),
    bug(
        0x144,
        "BUGCODE_USB3_DRIVER",
        "A USB 3 controller or a driver of its stack failed.",
        K.SUBCODE("failure"),
        *_DEPENDS,
    ),
    bug(0x145, "SECURE_BOOT_VIOLATION", "The policy of secure boot was violated, or could not be read."),
    bug(
        0x146,
        "NDIS_NET_BUFFER_LIST_INFO_ILLEGALLY_TRANSFERRED",
        "A network driver passed on a packet's context that is only the sender's.",
    ),
    bug(0x147, "ABNORMAL_RESET_DETECTED", "The machine was reset in a way that it should not be."),
    bug(0x148, "IO_OBJECT_INVALID", "An object of the I/O manager is not valid."),
    bug(
        0x149,
        "REFS_FILE_SYSTEM",
        "The ReFS file system failed.",
        K.SOURCE_LINE("where in its source"),
        K.EXCEPTION_RECORD("exception record, if it came through the driver's exception filter"),
        K.CONTEXT_RECORD("context record, if it came through the driver's exception filter"),
    ),
    bug(
        0x14A,
        "KERNEL_WMI_INTERNAL",
        "Management instrumentation in the kernel failed.",
        K.SUBCODE("failure"),
        *_DEPENDS,
    ),
    bug(0x14B, "SOC_SUBSYSTEM_FAILURE", "A part of the system on a chip failed beyond recovery.", *_SOC),
    bug(0x14C, "FATAL_ABNORMAL_RESET_ERROR", "The machine was reset by an error that it could not recover from."),
    bug(0x14D, "EXCEPTION_SCOPE_INVALID", "The scopes of exception handlers do not fit the code."),
    bug(0x14E, "SOC_CRITICAL_DEVICE_REMOVED", "A device that the system on a chip cannot do without went away."),
    bug(
        0x14F,
        "PDC_WATCHDOG_TIMEOUT",
        "A component did not answer the power dependency coordinator while the system was to sleep or wake.",
        *_POWER_COORDINATOR,
    ),
    bug(
        0x150,
        "TCPIP_AOAC_NIC_ACTIVE_REFERENCE_LEAK",
        "A reference that keeps a network adapter awake was never given back.",
    ),
    bug(0x151, "UNSUPPORTED_INSTRUCTION_MODE", "Code ran in an instruction set that is not supported there."),
    bug(0x152, "INVALID_PUSH_LOCK_FLAGS", "A push lock was acquired or released with flags that are not valid."),
    bug(
        0x153,
        "KERNEL_LOCK_ENTRY_LEAKED_ON_THREAD_TERMINATION",
        "A thread ended before it had released all its locks.",
        K.THREAD("thread"),
        K.ADDRESS("lock entry that is left"),
        K.VALUE("state of that entry"),
    ),
    bug(
        0x154,
        "UNEXPECTED_STORE_EXCEPTION",
        "The store of compressed memory raised an exception that nobody expected: often a bad disk or bad memory.",
        K.ADDRESS("store, or its data manager"),
        K.ADDRESS("exception information"),
    ),
    bug(0x155, "OS_DATA_TAMPERING", "Data of the operating system was tampered with."),
    bug(0x156, "WINSOCK_DETECTED_HUNG_CLOSESOCKET_LIVEDUMP", "Closing a socket hangs."),
    bug(
        0x157,
        "KERNEL_THREAD_PRIORITY_FLOOR_VIOLATION",
        "The floor of a thread's priority was set or given back wrongly.",
        K.THREAD("thread"),
        K.VALUE("priority"),
        K.VALUE("what is wrong"),
    ),
    bug(0x158, "ILLEGAL_IOMMU_PAGE_FAULT", "A device touched memory that the IOMMU does not let it touch."),
    bug(0x159, "HAL_ILLEGAL_IOMMU_PAGE_FAULT", "A device touched memory that the IOMMU does not let it touch."),
    bug(0x15A, "SDBUS_INTERNAL_ERROR", "An SD bus or card failed beyond recovery.", K.SUBCODE("failure"), *_DEPENDS),
    bug(
        0x15B,
        "WORKER_THREAD_RETURNED_WITH_SYSTEM_PAGE_PRIORITY_ACTIVE",
        "A work item returned with the page priority of the system still set.",
        K.CODE_ADDRESS("worker routine"),
        K.ADDRESS("work item's parameter"),
        K.ADDRESS("work item"),
    ),
    bug(
        0x15C,
        "PDC_WATCHDOG_TIMEOUT_LIVEDUMP",
        "A component did not answer the power dependency coordinator in time.",
        *_POWER_COORDINATOR,
    ),
    bug(0x15D, "SOC_SUBSYSTEM_FAILURE_LIVEDUMP", "A part of the system on a chip failed and was restarted.", *_SOC),
    bug(
        0x15E,
        "BUGCODE_NDIS_DRIVER_LIVE_DUMP",
        "NDIS found that a network driver does what it must not, and could go on.",
        K.SUBCODE("violation"),
        *_DEPENDS,
    ),
    bug(
        0x15F,
        "CONNECTED_STANDBY_WATCHDOG_TIMEOUT_LIVEDUMP",
        "The system could not reach, or did not stay in, connected standby.",
        K.SUBCODE("which watchdog"),
        *_DEPENDS,
    ),
    bug(0x160, "WIN32K_ATOMIC_CHECK_FAILURE", "A function of the window system that must be atomic was not."),
    bug(0x161, "LIVE_SYSTEM_DUMP", "Nothing failed: a dump of a running system was asked for.", asked_for=True),
    bug(
        0x162,
        "KERNEL_AUTO_BOOST_INVALID_LOCK_RELEASE",
        "A lock was released by a thread other than the one that acquired it.",
        K.THREAD("thread"),
        K.ADDRESS("lock"),
        K.VALUE("session of the thread"),
    ),
    bug(0x163, "WORKER_THREAD_TEST_CONDITION", "A test of the kernel's worker threads failed."),
    bug(
        0x164,
        "WIN32K_CRITICAL_FAILURE",
        "The window system failed beyond recovery.",
        K.SUBCODE("failure"),
        *_DEPENDS,
    ),
    bug(0x165, "CLUSTER_CSV_STATUS_IO_TIMEOUT_LIVEDUMP", f"{_CLUSTER} did not complete an I/O in time."),
    bug(0x166, "CLUSTER_RESOURCE_CALL_TIMEOUT_LIVEDUMP", "A resource of a failover cluster did not answer in time."),
    bug(
        0x167,
        "CLUSTER_CSV_SNAPSHOT_DEVICE_INFO_TIMEOUT_LIVEDUMP",
        f"{_CLUSTER} did not learn of its snapshot device in time.",
    ),
    bug(0x168, "CLUSTER_CSV_STATE_TRANSITION_TIMEOUT_LIVEDUMP", f"{_CLUSTER} did not change its state in time."),
    bug(0x169, "CLUSTER_CSV_VOLUME_ARRIVAL_LIVEDUMP", f"{_CLUSTER} did not come on line as it should."),
    bug(0x16A, "CLUSTER_CSV_VOLUME_REMOVAL_LIVEDUMP", f"{_CLUSTER} did not go off line as it should."),
    bug(0x16B, "CLUSTER_CSV_CLUSTER_WATCHDOG_LIVEDUMP", f"{_CLUSTER} was caught by the cluster's watchdog."),
    bug(0x16C, "INVALID_RUNDOWN_PROTECTION_FLAGS", "Run-down protection was used with flags that are not valid."),
    bug(0x16D, "INVALID_SLOT_ALLOCATOR_FLAGS", "A slot allocator was used with flags that are not valid."),
    bug(
        0x16E,
        "ERESOURCE_INVALID_RELEASE",
        "A resource was released for an owner that does not hold it.",
        K.ADDRESS("resource"),
        K.THREAD("thread that released it"),
        K.THREAD("owner that it gave"),
    ),
    bug(
        0x16F,
        "CLUSTER_CSV_STATE_TRANSITION_INTERVAL_TIMEOUT_LIVEDUMP",
        f"{_CLUSTER} took too long between two states.",
    ),
    bug(
        0x170,
        "CLUSTER_CSV_CLUSSVC_DISCONNECT_WATCHDOG",
        "The service of a failover cluster did not disconnect from a shared volume in time.",
    ),
    bug(
        0x171,
        "CRYPTO_LIBRARY_INTERNAL_ERROR",
        "The cryptographic library failed.",
        K.SUBCODE("failure"),
        *_DEPENDS,
    ),
    bug(0x173, "COREMSGCALL_INTERNAL_ERROR", "Calls of core messaging failed in the kernel."),
    bug(0x174, "COREMSG_INTERNAL_ERROR", "Core messaging failed in the kernel."),
    bug(
        0x175,
        "PREVIOUS_FATAL_ABNORMAL_RESET_ERROR",
        "The machine had been reset before by an error that it could not recover from.",
    ),
    bug(
        0x178,
        "ELAM_DRIVER_DETECTED_FATAL_ERROR",
        "The antimalware driver that is loaded first stopped the system.",
        K.VALUE("the driver's own reason"),
        K.VALUE("the driver's own data"),
        K.VALUE("the driver's own data"),
        K.VALUE("the driver's own data"),
    ),
    bug(0x179, "CLUSTER_CLUSPORT_STATUS_IO_TIMEOUT_LIVEDUMP", "The storage bus of a cluster did not complete an I/O."),
    bug(0x17B, "PROFILER_CONFIGURATION_ILLEGAL", "The hardware of profiling was set up in a way that is not allowed."),
    bug(0x17C, "PDC_LOCK_WATCHDOG_LIVEDUMP", "A lock of the power dependency coordinator was held for too long."),
    bug(
        0x17D, "PDC_UNEXPECTED_REVOCATION_LIVEDUMP", "The power dependency coordinator took a right back unexpectedly."
    ),
    bug(0x17E, "MICROCODE_REVISION_MISMATCH", "The processors run different revisions of microcode."),
    bug(0x17F, "HYPERGUARD_INITIALIZATION_FAILURE", "The guard in the secure kernel could not be started."),
)
