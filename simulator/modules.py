"""Which images the machine has loaded, and which functions they are made of: enough for every stack that is told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from protocol.address import PAGE_SIZE

from .code import Function
from .pe import ImageSpec, Variable
from .profile import KernelProfile
from .resources import VersionText

__all__ = [
    "BREAK_INSTRUCTION",
    "DIVISION",
    "FAST_FAIL",
    "PAUSE",
    "READ_FAULT",
    "driver_specs",
    "kernel_spec",
    "other_drivers",
]

BREAK_INSTRUCTION = b"\xcc"
PAUSE = b"\xf3\x90"
READ_FAULT = bytes.fromhex("8b4110")
"""mov eax,[rcx+10h]: faults when rcx points to memory that was freed."""
DIVISION = bytes.fromhex("f7f1")
"""div ecx: faults when ecx is 0."""
FAST_FAIL = bytes.fromhex("cd29")
"""int 29h: __fastfail, for the reason in ecx."""

_IDLE = bytes.fromhex("33c9 33d2 0f01c8 33c0 90 0f01c9 c3")  # xor, xor, monitor, xor, nop, mwait, ret
_EIGHT = ("rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15")
_SEVEN = ("rbp", "rsi", "rdi", "r12", "r13", "r14", "r15")

_KERNEL = (
    Function("KiSystemStartup", ("KiInitializeKernel",), locals=0x38, exported=False),
    Function("KiInitializeKernel", pushes=("rbx",), locals=0x30, exported=False),
    Function("DbgBreakPoint", literal=bytes.fromhex("cc c3")),
    Function("DbgBreakPointWithStatus", literal=bytes.fromhex("cc c3")),
    Function("DbgUserBreakPoint", literal=bytes.fromhex("cc c3"), exported=False),
    Function("KiBugCheckDebugBreak", ("DbgBreakPointWithStatus",), pushes=("rbx", "rsi", "rdi"), locals=0x30,
             exported=False),
    Function("KeBugCheck2", ("KiBugCheckDebugBreak",), pushes=_SEVEN, locals=0x9C0, frame_offset=0xC0,
             exported=False),
    Function("KeBugCheckEx", ("RtlCaptureContext", "KeBugCheck2"), locals=0x38, homes=True),
    Function("KeBugCheck", ("KeBugCheckEx",), locals=0x38),
    Function("RtlCaptureContext", pushes=(), locals=0x28),
    Function("KiBugCheckDispatch", ("KeBugCheckEx",), locals=0x138, exported=False,
             saves=(("rbp", 0xF8), ("rbx", 0x100), ("rdi", 0x108), ("rsi", 0x110), ("r12", 0x118), ("r13", 0x120),
                    ("r14", 0x128), ("r15", 0x130))),
    Function.trap("KiDivideErrorFault", "KiExceptionDispatch"),
    Function.trap("KiDebugTrapOrFault"),
    Function.trap("KiNmiInterrupt"),
    Function.trap("KiBreakpointTrap"),
    Function.trap("KiGeneralProtectionFault", "KiBugCheckDispatch"),
    Function.trap("KiPageFault", "MmAccessFault", "KiBugCheckDispatch", "KiExceptionDispatch"),
    Function.trap("KiUnexpectedInterrupt"),
    Function("MmAccessFault", ("MiSystemFault",), pushes=_EIGHT, locals=0x158, exported=False),
    Function.trap("KiSystemCall64", "NtReadFile", "NtDeviceIoControlFile", "NtWaitForSingleObject"),
    Function.trap("KiInterruptDispatchNoLockNoEtw", "KiInterruptSubDispatchNoLockNoEtw"),
    Function("KiInterruptSubDispatchNoLockNoEtw", ("KiCallInterruptServiceRoutine",), pushes=("rbx",), locals=0x30,
             exported=False),
    Function("KiCallInterruptServiceRoutine", ("HalpTimerClockInterrupt",), pushes=("rbx", "rsi"), locals=0x38,
             exported=False),
    Function("HalpTimerClockInterrupt", ("KeClockInterruptNotify",), locals=0x38, exported=False),
    Function("KeClockInterruptNotify", ("KeAccumulateTicks",), pushes=("rbx", "rsi", "rdi"), locals=0x50,
             exported=False),
    Function("KeAccumulateTicks", ("KdCheckForDebugBreak",), pushes=("rbx", "rbp", "rsi", "rdi"), locals=0x68,
             exported=False),
    Function("KdCheckForDebugBreak", ("KdPollBreakIn", "DbgBreakPointWithStatus"), locals=0x28, exported=False),
    Function("KdPollBreakIn", ("kdcom!KdReceivePacket",), pushes=("rbx", "rdi"), locals=0x28),
    Function.trap("KiIpiInterrupt", "KiIpiInterruptSubDispatch"),
    Function("KiIpiInterruptSubDispatch", ("KiFreezeTargetExecution",), pushes=("rbx",), locals=0x20, exported=False),
    Function("KiFreezeTargetExecution", pushes=("rbx", "rbp", "rsi"), locals=0x60, event=PAUSE, exported=False),
    Function("KiIdleLoop", ("KiRetireDpcList", "PoIdle"), locals=0x28, exported=False),
    Function("PoIdle", ("PpmIdleExecuteTransition",), pushes=_EIGHT, locals=0x168, exported=False),
    Function("PpmIdleExecuteTransition", ("intelppm!MWaitIdle",), pushes=_SEVEN, locals=0x190, frame_offset=0x30,
             exported=False),
    Function("KiRetireDpcList", ("KiExecuteAllDpcs", "KiTimerExpiration"), pushes=_EIGHT, locals=0x628, exported=False),
    Function("KiExecuteAllDpcs", ("tcpip!TcpPeriodicTimeoutHandler",), pushes=_EIGHT, locals=0x168, exported=False),
    Function("KeAcquireSpinLockRaiseToDpc", ("KxWaitForSpinLockAndAcquire",), pushes=("rbx",), locals=0x20),
    Function("KxWaitForSpinLockAndAcquire", pushes=("rbx", "rsi"), locals=0x28, event=PAUSE, exported=False),
    Function("KiStartSystemThread", ("PspSystemThreadStartup",), locals=0x28, exported=False),
    Function("PspSystemThreadStartup", ("ExpWorkerThread",), pushes=("rbx", "rsi"), locals=0x38, exported=False),
    Function("ExpWorkerThread", ("IopProcessWorkItem", "KeRemovePriQueue"), pushes=_EIGHT, locals=0x78,
             exported=False),
    Function("IopProcessWorkItem", ("mydrv!FlushWorkItem", "labflt!FlushWorkItem"),
             pushes=("rbx", "rsi", "rdi"), locals=0x50, exported=False),
    Function("KeRemovePriQueue", ("KiSwapThread",), pushes=_EIGHT, locals=0x48, exported=False),
    Function("KiSwapThread", ("KiSwapContext",), pushes=_EIGHT, locals=0x98, exported=False),
    Function("KiSwapContext", ("SwapContext",), locals=0x138, exported=False,
             saves=(("rbx", 0x100), ("rdi", 0x108), ("rsi", 0x110), ("r12", 0x118), ("r13", 0x120), ("r14", 0x128),
                    ("r15", 0x130))),
    Function("SwapContext", pushes=("rbp",), locals=0x30, exported=False),
    Function("NtReadFile", ("IopSynchronousServiceTail",), pushes=_EIGHT, locals=0xA8),
    Function("NtDeviceIoControlFile", ("IopXxxControlFile",), locals=0x68),
    Function("IopXxxControlFile", ("IopSynchronousServiceTail",), pushes=_EIGHT, locals=0x108, exported=False),
    Function("NtWaitForSingleObject", ("KeWaitForSingleObject",), pushes=("rbx", "rsi", "rdi"), locals=0x60),
    Function("KeWaitForSingleObject", ("KiSwapThread",), pushes=_EIGHT, locals=0x98),
    Function("IopSynchronousServiceTail", ("IofCallDriver",), pushes=_EIGHT, locals=0x78, exported=False),
    Function("IofCallDriver",
             ("Ntfs!NtfsFsdRead", "mydrv!DispatchDeviceControl", "labflt!PassDown", "labflt!DispatchDeviceControl"),
             locals=0x38),
    Function("ExAcquireResourceExclusiveLite", ("KxWaitForSpinLockAndAcquire",), pushes=_EIGHT, locals=0x48),
    Function("ExAcquireResourceSharedLite", pushes=("rbx", "rsi"), locals=0x38),
    Function("ExAllocatePoolWithTag", pushes=_EIGHT, locals=0x58),
    Function("ExFreePoolWithTag", pushes=_EIGHT, locals=0x48),
    Function("ExQueueWorkItem", pushes=("rbx",), locals=0x30),
    Function("IoAllocateWorkItem", ("ExAllocatePoolWithTag",), pushes=("rbx",), locals=0x20),
    Function("IoCreateDevice", ("ExAllocatePoolWithTag",), pushes=_EIGHT, locals=0x158),
    Function("IoDeleteDevice", ("ExFreePoolWithTag",), pushes=("rbx",), locals=0x20),
    Function("IoBuildDeviceIoControlRequest", ("ExAllocatePoolWithTag",), pushes=("rbx", "rbp", "rsi", "rdi"),
             locals=0x58),
    Function("KeInitializeDpc", literal=bytes.fromhex("33c0 488901 c3")),
    Function("KeQueryPerformanceCounter", pushes=("rbx",), locals=0x20),
    Function("KeSetEvent", pushes=_EIGHT, locals=0x38, event=READ_FAULT),
    Function("KeStallExecutionProcessor", pushes=("rbx",), locals=0x20),
    Function("MmGetPhysicalAddress", locals=0x28),
    Function("MmMapIoSpace", pushes=_EIGHT, locals=0x88),
    Function("ObReferenceObjectByHandle", pushes=_EIGHT, locals=0x88),
    Function("ObfDereferenceObject", pushes=("rbx",), locals=0x20),
    Function("PsCreateSystemThread", pushes=("rbx",), locals=0x60),
    Function("PsGetCurrentProcess", literal=bytes.fromhex("65488b042588010000 488b80b8000000 c3")),
    Function("RtlInitUnicodeString", literal=bytes.fromhex("33c0 488901 48895108 c3")),
    Function("RtlCopyMemory", literal=bytes.fromhex("488bc1 c3")),
    Function("DbgPrint", ("DbgPrintEx",), locals=0x38),
    Function("DbgPrintEx", pushes=("rbx", "rsi"), locals=0x38),
    Function("KiCallUserMode", pushes=("rbx", "rbp", "rsi", "rdi"), locals=0x138, exported=False),
    Function("ZwClose", literal=bytes.fromhex("488bc4 fa c3")),
    # ways into KeBugCheckEx (kd-protocol 7.2)
    Function("KiExceptionDispatch", ("KiDispatchException",), locals=0x1D8, exported=False,
             saves=(("rbp", 0x198), ("rbx", 0x1A0), ("rdi", 0x1A8), ("rsi", 0x1B0), ("r12", 0x1B8), ("r13", 0x1C0),
                    ("r14", 0x1C8), ("r15", 0x1D0))),
    Function("KiDispatchException", ("RtlDispatchException", "KeBugCheckEx"), pushes=_SEVEN, locals=0x6C0,
             frame_offset=0xC0, exported=False),
    Function("RtlDispatchException", ("RtlpExecuteHandlerForException",), pushes=_EIGHT, locals=0x5A8, exported=False),
    Function("RtlpExecuteHandlerForException", ("KiSystemServiceHandler", "_C_specific_handler"), locals=0x28,
             exported=False),
    Function("KiSystemServiceHandler", ("KiBugCheckDispatch",), locals=0x28, exported=False),
    Function("_C_specific_handler", ("PspSystemThreadStartup$filt$0",), pushes=_SEVEN, locals=0x40, exported=False),
    Function("PspSystemThreadStartup$filt$0", ("KeBugCheckEx",), pushes=("rbp",), locals=0x30, exported=False),
    Function("MiSystemFault", ("KeBugCheckEx",), pushes=_EIGHT, locals=0x118, exported=False),
    Function.trap("KiRaiseSecurityCheckFailure", "KiFastFailDispatch"),
    Function("KiFastFailDispatch", ("KiBugCheckDispatch",), locals=0x1D8, exported=False,
             saves=(("rbp", 0x198), ("rbx", 0x1A0), ("rdi", 0x1A8), ("rsi", 0x1B0), ("r12", 0x1B8), ("r13", 0x1C0),
                    ("r14", 0x1C8), ("r15", 0x1D0))),
    Function("KiTimerExpiration", ("KiExpireTimerTable",), pushes=_EIGHT, locals=0x128, exported=False),
    Function("KiExpireTimerTable", ("KiProcessExpiredTimerList",), pushes=_EIGHT, locals=0x98, exported=False),
    Function("KiProcessExpiredTimerList", ("PopIrpWatchdog",), pushes=_EIGHT, locals=0xF8, exported=False),
    Function("PopIrpWatchdog", ("PopIrpWatchdogBugcheck",), pushes=("rbx",), locals=0x30, exported=False),
    Function("PopIrpWatchdogBugcheck", ("KeBugCheckEx",), pushes=("rbx", "rsi"), locals=0x58, exported=False),
    Function("ZwTerminateProcess", ("NtTerminateProcess",), locals=0x28),
    Function("NtTerminateProcess", ("PspTerminateProcess",), pushes=("rbx", "rsi", "rdi"), locals=0x40),
    Function("PspTerminateProcess", ("PspTerminateAllThreads",), pushes=("rbx", "rsi"), locals=0x38, exported=False),
    Function("PspTerminateAllThreads", ("PspCatchCriticalBreak",), pushes=_EIGHT, locals=0x88, exported=False),
    Function("IopInvalidDeviceRequest", literal=bytes.fromhex("b8100000c0 c3"), exported=False),
    Function("PspCatchCriticalBreak", ("KeBugCheckEx",), pushes=("rbx", "rsi", "rdi"), locals=0x50, exported=False),
)  # fmt: skip

_DRIVER_ENTRY = Function("DriverEntry", ("nt!IoCreateDevice",), pushes=("rbx", "rsi"), locals=0x38, exported=False)

_MYDRV = (
    Function("DriverEntry", ("nt!IoCreateDevice", "nt!IoAllocateWorkItem"), pushes=("rbx", "rsi"), locals=0x38,
             exported=False),
    Function("FlushWorkItem", ("FlushQueue",), pushes=("rbx", "rsi"), locals=0x38, exported=False),
    Function("DispatchDeviceControl", ("FlushQueue",), pushes=("rbx",), locals=0x30, exported=False),
    Function("FlushQueue",
             ("ReadBuffer", "CheckQueue", "GiveUp", "AverageDepth", "UnlinkEntry", "TellOwner", "StopOwner"),
             pushes=("rbx", "rbp", "rsi", "rdi"), locals=0x48, exported=False),
    Function("ReadBuffer", ("nt!DbgPrint",), pushes=("rbx",), locals=0x40, event=READ_FAULT, exported=False),
    Function("CheckQueue", ("nt!DbgPrint",), pushes=("rbx", "rdi"), locals=0x28, event=BREAK_INSTRUCTION,
             exported=False),
    Function("GiveUp", ("nt!KeBugCheckEx",), pushes=("rbx",), locals=0x30, exported=False),
    Function("AverageDepth", pushes=("rbx",), locals=0x20, event=DIVISION, exported=False),
    Function("UnlinkEntry", pushes=("rbx", "rsi"), locals=0x28, event=FAST_FAIL, exported=False),
    Function("TellOwner", ("nt!KeSetEvent",), pushes=("rbx",), locals=0x20, exported=False),
    Function("DispatchPower", ("nt!IofCallDriver",), pushes=("rbx",), locals=0x20, exported=False),
    Function("StopOwner", ("nt!ZwTerminateProcess",), pushes=("rbx", "rsi"), locals=0x28, exported=False),
)  # fmt: skip

_DRIVERS: tuple[tuple[str, str, str, tuple[Function, ...], int], ...] = (
    ("hal", "hal.dll", r"\SystemRoot\system32\hal.dll", (
        Function("HalInitSystem", pushes=("rbx",), locals=0x30),
        Function("HalReturnToFirmware", ("nt!KeStallExecutionProcessor",), locals=0x28),
        Function("HalRequestSoftwareInterrupt", literal=bytes.fromhex("33c0 c3")),
        Function("HalGetInterruptVector", pushes=("rbx", "rsi"), locals=0x38),
    ), 0x6000),
    ("kdcom", "kdcom.dll", r"\SystemRoot\system32\kdcom.dll", (
        Function("KdD0Transition", literal=bytes.fromhex("33c0 c3")),
        Function("KdDebuggerInitialize0", pushes=("rbx",), locals=0x30),
        Function("KdReceivePacket", pushes=_EIGHT, locals=0x38),
        Function("KdSendPacket", ("KdReceivePacket",), pushes=("rbx", "rsi", "rdi"), locals=0x50),
    ), 0xB000),
    ("ACPI", "ACPI.sys", r"\SystemRoot\System32\drivers\ACPI.sys", (
        _DRIVER_ENTRY,
        Function("ACPIInterruptServiceRoutine", pushes=("rbx",), locals=0x20, exported=False),
        Function("ACPIDispatchIrp", ("nt!IofCallDriver",), pushes=("rbx", "rsi", "rdi"), locals=0x50, exported=False),
    ), 0xCC000),
    ("intelppm", "intelppm.sys", r"\SystemRoot\System32\drivers\intelppm.sys", (
        _DRIVER_ENTRY,
        Function("MWaitIdle", literal=_IDLE, exported=False),
    ), 0x3D000),
    ("disk", "disk.sys", r"\SystemRoot\System32\drivers\disk.sys", (
        _DRIVER_ENTRY,
        Function("DiskReadWriteVerification", pushes=("rbx",), locals=0x40, exported=False),
    ), 0x1C000),
    ("FLTMGR", "FLTMGR.SYS", r"\SystemRoot\System32\drivers\FLTMGR.SYS", (
        _DRIVER_ENTRY,
        Function("FltRegisterFilter", ("nt!ExAllocatePoolWithTag",), pushes=_EIGHT, locals=0x78),
        Function("FltpDispatch", ("nt!IofCallDriver",), pushes=("rbx", "rbp", "rsi"), locals=0x50, exported=False),
    ), 0x6F000),
    ("Ntfs", "Ntfs.sys", r"\SystemRoot\System32\Drivers\Ntfs.sys", (
        _DRIVER_ENTRY,
        Function("NtfsFsdRead", ("NtfsCommonRead",), pushes=("rbx", "rsi", "rdi", "r14"), locals=0x78,
                 exported=False),
        Function("NtfsCommonRead", ("nt!ExAcquireResourceExclusiveLite",), pushes=_EIGHT, locals=0x228,
                 exported=False),
    ), 0x2DB000),
    ("tcpip", "tcpip.sys", r"\SystemRoot\System32\drivers\tcpip.sys", (
        _DRIVER_ENTRY,
        Function("TcpPeriodicTimeoutHandler", ("nt!KeAcquireSpinLockRaiseToDpc",), pushes=_EIGHT, locals=0xB8,
                 exported=False),
    ), 0x2EC000),
    ("mydrv", "mydrv.sys", r"\??\C:\Lab\x64\mydrv.sys", _MYDRV, 0x9000),
    ("labflt", "labflt.sys", r"\SystemRoot\System32\drivers\labflt.sys", (
        *_MYDRV,
        Function("PassDown", ("nt!IofCallDriver",), pushes=("rbx", "rsi"), locals=0x38, exported=False),
    ), 0xA000),
)  # fmt: skip


_MICROSOFT = "Microsoft Corporation"
_VERSIONS = {
    "mydrv": VersionText("Contoso Laboratories", "Queue driver", "2.4.1.77"),
    "labflt": VersionText("Fabrikam", "Measuring filter", "1.0.0.12"),
}
"""Of those that do not come with Windows."""


def _stamp(name: str, build: int) -> tuple[int, int]:
    """A timestamp and a checksum that belong to this image in this version of Windows."""
    digest = hashlib.sha256(f"{name} {build}".encode()).digest()
    word = int.from_bytes(digest[:4], "little")
    return 0x45000000 + word % 0x20000000, 0x10000 + int.from_bytes(digest[4:8], "little") % 0xA00000


def kernel_spec(
    profile: KernelProfile, variables: tuple[Variable, ...], *, large: bool, linked: bool = False
) -> ImageSpec:
    """ntoskrnl with these variables in its data section; a large one is padded to whole 2 MiB pages."""
    time_date_stamp, check_sum = _stamp("nt", profile.build)
    path = r"\SystemRoot\system32\ntoskrnl.exe"
    if profile.kdbg_size < 0x330:
        path = r"multi(0)disk(0)rdisk(0)partition(1)\WINDOWS\system32\ntoskrnl.exe"
    return ImageSpec(
        name="nt",
        file_name="ntoskrnl.exe",
        path=path,
        functions=_KERNEL,
        variables=variables,
        entry="KiSystemStartup",
        pdb_name="ntkrnlmp.pdb",
        time_date_stamp=time_date_stamp,
        check_sum=check_sum,
        least_size=0x800000 if large else 0,
        linked=linked,
        version=VersionText(_MICROSOFT, "NT Kernel & System", f"10.0.{profile.build}.1"),
    )


def driver_specs(profile: KernelProfile, *, small: bool, linked: bool = False) -> list[ImageSpec]:
    """Everything else that is loaded, in load order. A machine with little memory has drivers without padding."""
    specs: list[ImageSpec] = []
    for name, file_name, path, functions, size in _DRIVERS:
        time_date_stamp, check_sum = _stamp(name, profile.build)
        specs.append(
            ImageSpec(
                name=name,
                file_name=file_name,
                path=path,
                functions=functions,
                variables=(Variable("__security_cookie"), Variable("WPP_GLOBAL_Control", 0x80)),
                entry="DriverEntry" if any(part.name == "DriverEntry" for part in functions) else functions[0].name,
                pdb_name=f"{name.lower()}.pdb",
                time_date_stamp=time_date_stamp,
                check_sum=check_sum,
                least_size=6 * PAGE_SIZE if small else size,
                linked=linked,
                version=_VERSIONS.get(name, VersionText(_MICROSOFT, f"{name} driver", f"10.0.{profile.build}.1")),
            )
        )
    return specs


def other_drivers(profile: KernelProfile, count: int) -> Iterator[ImageSpec]:
    """So many more that do nothing, of Microsoft's."""
    for number in range(count):
        time_date_stamp, check_sum = _stamp(f"other {number}", profile.build)
        yield ImageSpec(
            name=f"other{number:03}",
            file_name=f"other{number:03}.sys",
            path=rf"\SystemRoot\System32\drivers\other{number:03}.sys",
            functions=(_DRIVER_ENTRY,),
            entry="DriverEntry",
            pdb_name=f"other{number:03}.pdb",
            time_date_stamp=time_date_stamp,
            check_sum=check_sum,
            version=VersionText(_MICROSOFT, f"Driver {number}", f"10.0.{profile.build}.1"),
        )
