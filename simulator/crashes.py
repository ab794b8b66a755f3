"""Crashes by their bug check: who called whom, and what each parameter holds (kd-protocol 7.2, 7.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from protocol.arch import AMD64
from protocol.dumpfile.exception import ExceptionRecord

from .power import PowerObjects
from .processes import SimulatedThread
from .situations import Situations, Standing
from .stacks import CallChain

__all__ = ["CRASHES", "Crash", "Crashes"]

_DISPATCH_LEVEL, _HIGH_LEVEL = 2, 15
_CONTEXT_AT, _FLAGS_AT_FAULT = 0xF0, 0x10202
"""KeBugCheck2 keeps the caller's CONTEXT among its locals."""
_RECORD_AT, _CONTEXT_OF_EXCEPTION_AT = 0x30, 0xD0
"""Where KiExceptionDispatch has the exception record, and KiDispatchException the CONTEXT, among their locals."""
_ACCESS_VIOLATION, _DIVIDE_BY_ZERO, _STACK_BUFFER_OVERRUN = 0xC0000005, 0xC0000094, 0xC0000409
_CORRUPT_LIST_ENTRY = 3
"""FAST_FAIL_CORRUPT_LIST_ENTRY."""
_WATCHDOG = 3
"""DRIVER_POWER_STATE_FAILURE: a device has held a power IRP for too long."""

_Parameters = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Crash:
    """Why a machine stops with this bug check, in a line for people."""

    text: str
    play: Callable[[Crashes, int], Standing]


class Crashes:
    """The stacks of a processor that crashes. Each method is one of them, from its outermost call inwards."""

    def __init__(
        self, situations: Situations, driver: str, critical_process: int, power: Callable[[], PowerObjects]
    ) -> None:
        """`driver` is guilty. `critical_process` is an EPROCESS; `power` lays a device that is stuck into memory."""
        self._at, self._critical_process, self._power = situations, critical_process, power
        self._driver = driver

    def bad_access(self, status: int) -> Standing:
        """D1: a driver reads memory that was freed, too high up to wait for a page."""
        thread, chain = self._worker()
        chain.call(f"{self._driver}!ReadBuffer")
        fault, site = self._fault(chain)
        chain.call("nt!KiBugCheckDispatch")
        return self._bug_check(thread, chain, 0xD1, (fault, _DISPATCH_LEVEL, 0, site), status, site, fault)

    def bad_argument(self, status: int) -> Standing:
        """0A: the kernel reads what a driver gave it, and that is no memory."""
        thread, chain = self._worker()
        self._at.calls(chain, f"{self._driver}!TellOwner", "nt!KeSetEvent")
        fault, site = self._fault(chain)
        chain.call("nt!KiBugCheckDispatch")
        return self._bug_check(thread, chain, 0x0A, (fault, _DISPATCH_LEVEL, 0, site), status, site, fault)

    def page_fault(self, status: int) -> Standing:
        """50: a driver reads memory that nobody has, where waiting for a page would be allowed."""
        thread, chain = self._worker()
        chain.call(f"{self._driver}!ReadBuffer")
        fault, site = self._fault(chain)
        self._at.calls(chain, "nt!MmAccessFault", "nt!MiSystemFault")
        return self._bug_check(thread, chain, 0x50, (fault, 0, site, 2), status, site, fault)

    def division(self, status: int) -> Standing:
        """1E: a driver divides by zero, and nobody handles that."""
        thread, chain = self._worker()
        chain.call(f"{self._driver}!AverageDepth")
        site = self._at.images.event_site(chain.current)
        chain.trap("nt!KiDivideErrorFault", flags=_FLAGS_AT_FAULT, volatile={"rcx": 0})
        self._at.calls(chain, "nt!KiExceptionDispatch", "nt!KiDispatchException")
        return self._bug_check(thread, chain, 0x1E, (_DIVIDE_BY_ZERO, site, 0, 0), status, site)

    def in_system_call(self, status: int) -> Standing:
        """3B: a driver reads memory that nobody has, on behalf of a program."""
        thread, chain = self._at.start("user")
        self._at.enter_from_user(thread, chain, "nt!KiSystemCall64")
        self._at.calls(
            chain, "nt!NtDeviceIoControlFile", "nt!IopXxxControlFile", "nt!IopSynchronousServiceTail",
            "nt!IofCallDriver", "labflt!PassDown", "nt!IofCallDriver", f"{self._driver}!DispatchDeviceControl",
            f"{self._driver}!FlushQueue", f"{self._driver}!ReadBuffer",
        )  # fmt: skip
        fault, site, _, context = self._exception(chain)
        self._at.calls(chain, "nt!KiSystemServiceHandler", "nt!KiBugCheckDispatch")
        return self._bug_check(thread, chain, 0x3B, (_ACCESS_VIOLATION, site, context, 0), status, site, fault)

    def in_system_thread(self, status: int) -> Standing:
        """7E: a driver's work item reads memory that nobody has."""
        thread, chain = self._worker()
        chain.call(f"{self._driver}!ReadBuffer")
        fault, site, record, context = self._exception(chain)
        self._at.calls(chain, "nt!_C_specific_handler", "nt!PspSystemThreadStartup$filt$0")
        return self._bug_check(thread, chain, 0x7E, (_ACCESS_VIOLATION, site, record, context), status, site, fault)

    def fast_fail(self, status: int) -> Standing:
        """139: a driver takes an entry out of a list whose links are broken, and sees it."""
        thread, chain = self._worker()
        chain.call(f"{self._driver}!UnlinkEntry")
        site = self._at.images.event_site(chain.current)
        chain.trap("nt!KiRaiseSecurityCheckFailure", flags=0x10246, volatile={"rcx": _CORRUPT_LIST_ENTRY})
        frame = chain.stack_pointer
        chain.call("nt!KiFastFailDispatch")
        record = chain.reserve(
            _RECORD_AT, ExceptionRecord(_STACK_BUFFER_OVERRUN, 1, 0, site, (_CORRUPT_LIST_ENTRY,)).encode(64)
        )
        chain.call("nt!KiBugCheckDispatch")
        return self._bug_check(thread, chain, 0x139, (_CORRUPT_LIST_ENTRY, frame, record, 0), status, site)

    def stuck_power_irp(self, status: int) -> Standing:
        """9F: a driver does not let go of a power IRP; the watchdog that notices runs on any processor."""
        objects = self._power()
        thread, chain = self._at.start("idle")
        self._at.calls(
            chain, "nt!KiIdleLoop", "nt!KiRetireDpcList", "nt!KiTimerExpiration", "nt!KiExpireTimerTable",
            "nt!KiProcessExpiredTimerList", "nt!PopIrpWatchdog", "nt!PopIrpWatchdogBugcheck",
        )  # fmt: skip
        return self._bug_check(thread, chain, 0x9F, (_WATCHDOG, objects.device, objects.triage, objects.irp), status)

    def critical_process_died(self, status: int) -> Standing:
        """EF: a driver ends a process without which Windows does not go on."""
        thread, chain = self._worker()
        self._at.calls(
            chain, f"{self._driver}!StopOwner", "nt!ZwTerminateProcess", "nt!NtTerminateProcess",
            "nt!PspTerminateProcess", "nt!PspTerminateAllThreads", "nt!PspCatchCriticalBreak",
        )  # fmt: skip
        return self._bug_check(thread, chain, 0xEF, (self._critical_process, 0, 0, 0), status)

    def gives_up(self, code: int, parameters: _Parameters, status: int) -> Standing:
        """A driver calls KeBugCheckEx itself."""
        thread, chain = self._worker()
        chain.call(f"{self._driver}!GiveUp")
        return self._bug_check(thread, chain, code, parameters, status)

    # ---- parts ---------------------------------------------------------------------------------------------

    def _worker(self) -> tuple[SimulatedThread, CallChain]:
        thread, chain = self._at.start("system")
        self._at.worker(chain, self._driver)
        return thread, chain

    def _fault(self, chain: CallChain, volatile: Mapping[str, int] | None = None) -> tuple[int, int]:
        """The current function reads through rcx: a page fault. Returns the address and the instruction."""
        fault = 0xFFFFA70F_00000000 + self._at.rng.randrange(1 << 20) * 0x10
        site = self._at.images.event_site(chain.current)
        known = {**(volatile or {}), "rcx": fault - 0x10}
        chain.trap("nt!KiPageFault", flags=_FLAGS_AT_FAULT, fault_address=fault, volatile=known)
        return fault, site

    def _exception(self, chain: CallChain) -> tuple[int, int, int, int]:
        """A page fault that becomes an exception and looks for a handler.

        Returns the address, the instruction, and where the EXCEPTION_RECORD and the CONTEXT lie.
        """
        before = chain.context(self._at.images.event_site(chain.current), {}, flags=_FLAGS_AT_FAULT)
        fault, site = self._fault(chain, before)
        chain.call("nt!KiExceptionDispatch")
        record = chain.reserve(_RECORD_AT, ExceptionRecord(_ACCESS_VIOLATION, 0, 0, site, (0, fault)).encode(64))
        chain.call("nt!KiDispatchException")
        context = chain.reserve(_CONTEXT_OF_EXCEPTION_AT, AMD64.context.encode({**before, "rcx": fault - 0x10}))
        self._at.calls(chain, "nt!RtlDispatchException", "nt!RtlpExecuteHandlerForException")
        return fault, site, record, context

    def _bug_check(
        self,
        thread: SimulatedThread,
        chain: CallChain,
        code: int,
        parameters: _Parameters,
        status: int,
        site: int = 0,
        fault: int = 0,
    ) -> Standing:
        bug_check = (code, *parameters)
        chain.call("nt!KeBugCheckEx", *bug_check)
        at = self._at.images.return_site("nt!KeBugCheckEx", "nt!RtlCaptureContext")
        caller = chain.context(at, {"rcx": code, "rdx": bug_check[1], "r8": bug_check[2], "r9": bug_check[3]})
        chain.call("nt!KeBugCheck2", *bug_check)
        saved = chain.reserve(_CONTEXT_AT, AMD64.context.encode(caller))
        chain.call("nt!KiBugCheckDebugBreak", status)
        return replace(
            self._at.break_with_status(thread, chain, status, _HIGH_LEVEL),
            fault_address=fault,
            bug_check=bug_check,
            saved_context=saved,
            guilty=self._driver,
            crash_site=site,
        )


CRASHES: Mapping[int, Crash] = {
    0x0A: Crash("the kernel reads what a driver gave it, and that is no memory", Crashes.bad_argument),
    0xD1: Crash("a driver reads memory that was freed", Crashes.bad_access),
    0x1E: Crash("a driver divides by zero", Crashes.division),
    0x3B: Crash("a driver fails in a system call", Crashes.in_system_call),
    0x50: Crash("a driver reads memory that nobody has", Crashes.page_fault),
    0x7E: Crash("a driver's work item fails in a system thread", Crashes.in_system_thread),
    0x139: Crash("a driver finds the links of a list broken", Crashes.fast_fail),
    0x9F: Crash("a driver does not let go of a power IRP", Crashes.stuck_power_irp),
    0xEF: Crash("a driver ends a process that Windows cannot do without", Crashes.critical_process_died),
}
"""Those whose parameters are made to fit their stack, by code."""
