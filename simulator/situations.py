"""Where each processor stands when the machine stops: whose stack, which calls, which registers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from protocol.arch import AMD64

from .processes import SimulatedThread
from .stacks import CallChain, LoadedImages, context_frame

__all__ = ["Standing", "ThreadKind", "make_chain"]

ThreadKind = Literal["idle", "system", "user"]

_APC_LEVEL, _DISPATCH_LEVEL, _CLOCK_LEVEL, _HIGH_LEVEL = 1, 2, 13, 15
_CONTROL_C, _FIRST_BREAK, _LAST_BREAK = 1, 3, 4
"""DBG_STATUS_CONTROL_C, DBG_STATUS_BUGCHECK_FIRST and _SECOND (kd-protocol 7.1)."""

_MEMORY_BUG_CHECKS = (0x0A, 0xD1)
"""Their parameters: the address, the IRQL, the kind of access, the instruction."""

_CONTEXT_AT, _FLAGS_AT_FAULT = 0xF0, 0x10202
"""KeBugCheck2 keeps the caller's CONTEXT among its locals."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One processor as it stands."""

    thread: SimulatedThread
    chain: CallChain
    context: dict[str, int]
    stale_context: dict[str, int]
    """What its CONTEXT in memory says: left there by an earlier stop, and true no more."""
    level: int
    """Its IRQL."""
    fault_address: int = 0
    break_status: int | None = None
    bug_check: tuple[int, int, int, int, int] | None = None
    saved_context: int = 0
    """Where KeBugCheckEx kept the CONTEXT of its caller (0: nowhere)."""
    from_user: bool = False
    """An interrupt took it out of user mode."""


def make_chain(
    images: LoadedImages,
    rng: random.Random,
    pool: tuple[int, ...],
    new_thread: Callable[[ThreadKind], SimulatedThread],
    *,
    stop: str | None,
    number: int,
    bug_check: tuple[int, tuple[int, int, int, int] | None],
) -> Standing:
    """What processor `number` does. `stop` says why the machine stopped, on the processor that stopped it."""
    make = _Maker(images, rng, pool, new_thread)
    if stop is None:
        return (make.idle, make.spinning, make.system_call, make.in_user_mode)[number % 4]()
    if stop == "running":
        return make.broken_in()
    if stop == "breakpoint":
        return make.driver_breakpoint()
    code, parameters = bug_check
    status = _FIRST_BREAK if stop == "bugcheck-first" else _LAST_BREAK
    if code in _MEMORY_BUG_CHECKS and parameters is None:
        return make.bad_access(code, status)
    return make.driver_gives_up(code, parameters or (0, 0, 0, 0), status)


class _Maker:
    """The stacks that exist. Each method is one of them, from its outermost call inwards."""

    def __init__(
        self,
        images: LoadedImages,
        rng: random.Random,
        pool: tuple[int, ...],
        new_thread: Callable[[ThreadKind], SimulatedThread],
    ) -> None:
        self.images, self.rng, self.pool, self.new_thread = images, rng, pool, new_thread

    # ---- processors that are frozen while another one talks ------------------------------------------------

    def idle(self) -> Standing:
        """Asleep in the idle loop when the interprocessor interrupt came."""
        thread, chain = self._start("idle")
        self._calls(chain, "nt!KiIdleLoop", "nt!PoIdle", "nt!PpmIdleExecuteTransition", "intelppm!MWaitIdle")
        return self._frozen(thread, chain)

    def spinning(self) -> Standing:
        """In a DPC, waiting for a spin lock."""
        thread, chain = self._start("idle")
        self._calls(
            chain,
            "nt!KiIdleLoop",
            "nt!KiRetireDpcList",
            "nt!KiExecuteAllDpcs",
            "tcpip!TcpPeriodicTimeoutHandler",
            "nt!KeAcquireSpinLockRaiseToDpc",
            "nt!KxWaitForSpinLockAndAcquire",
        )
        return self._frozen(thread, chain)

    def system_call(self) -> Standing:
        """A user thread that reads a file."""
        thread, chain = self._start("user")
        self._enter_from_user(thread, chain, "nt!KiSystemCall64")
        self._calls(
            chain,
            "nt!NtReadFile",
            "nt!IopSynchronousServiceTail",
            "nt!IofCallDriver",
            "Ntfs!NtfsFsdRead",
            "Ntfs!NtfsCommonRead",
            "nt!ExAcquireResourceExclusiveLite",
            "nt!KxWaitForSpinLockAndAcquire",
        )
        return self._frozen(thread, chain)

    def in_user_mode(self) -> Standing:
        """A user thread that calculates."""
        thread, chain = self._start("user")
        self._enter_from_user(thread, chain, "nt!KiIpiInterrupt")
        return self._frozen(thread, chain, entered=True)

    # ---- the processor that stopped ------------------------------------------------------------------------

    def broken_in(self) -> Standing:
        """The clock interrupt saw the debugger's break-in byte."""
        thread, chain = self._start("idle")
        self._calls(chain, "nt!KiIdleLoop", "nt!PoIdle", "nt!PpmIdleExecuteTransition", "intelppm!MWaitIdle")
        chain.trap("nt!KiInterruptDispatchNoLockNoEtw", flags=0x246)
        self._calls(
            chain,
            "nt!KiInterruptSubDispatchNoLockNoEtw",
            "nt!KiCallInterruptServiceRoutine",
            "nt!HalpTimerClockInterrupt",
            "nt!KeClockInterruptNotify",
            "nt!KeAccumulateTicks",
            "nt!KdCheckForDebugBreak",
        )
        return self._break_with_status(thread, chain, _CONTROL_C, _CLOCK_LEVEL)

    def driver_breakpoint(self) -> Standing:
        """A driver's own int3."""
        thread, chain = self._start("system")
        self._worker(chain)
        chain.call("mydrv!CheckQueue")
        at = self.images.event_site("mydrv!CheckQueue")
        chain.stop(at)
        context = chain.context(at, {"rcx": self.rng.choice(self.pool)})
        return Standing(thread, chain, context, self._stale(thread), 0)

    def bad_access(self, code: int, status: int) -> Standing:
        """A driver reads memory that was freed, too high up to wait for a page."""
        thread, chain = self._start("system")
        self._worker(chain)
        chain.call("mydrv!ReadBuffer")
        fault = 0xFFFFA70F_00000000 + self.rng.randrange(1 << 20) * 0x10
        site = self.images.event_site("mydrv!ReadBuffer")
        chain.trap("nt!KiPageFault", flags=_FLAGS_AT_FAULT, fault_address=fault)
        chain.call("nt!KiBugCheckDispatch")
        return self._bug_check(thread, chain, (0x0A, fault, _DISPATCH_LEVEL, 0, site), code, status, fault)

    def driver_gives_up(self, code: int, parameters: tuple[int, int, int, int], status: int) -> Standing:
        """A driver calls KeBugCheckEx itself."""
        thread, chain = self._start("system")
        self._worker(chain)
        chain.call("mydrv!GiveUp")
        return self._bug_check(thread, chain, (code, *parameters), code, status, 0)

    # ---- parts ---------------------------------------------------------------------------------------------

    def _start(self, kind: ThreadKind) -> tuple[SimulatedThread, CallChain]:
        thread = self.new_thread(kind)
        return thread, CallChain(self.images, thread.stack_base, thread.stack_limit, self.rng, self.pool)

    @staticmethod
    def _calls(chain: CallChain, *symbols: str) -> None:
        for symbol in symbols:
            chain.call(symbol)

    def _worker(self, chain: CallChain) -> None:
        self._calls(
            chain,
            "nt!KiStartSystemThread",
            "nt!PspSystemThreadStartup",
            "nt!ExpWorkerThread",
            "nt!IopProcessWorkItem",
            "mydrv!FlushWorkItem",
            "mydrv!FlushQueue",
        )

    def _enter_from_user(self, thread: SimulatedThread, chain: CallChain, handler: str) -> None:
        # Behind the syscall instruction of a stub in the process's code page.
        instruction = thread.process.image_base + 0x1000 + 11 * self.rng.randrange(8) + 10
        chain.enter_kernel(instruction, thread.process.user_stack)
        chain.trap(handler, flags=0x246)

    def _frozen(self, thread: SimulatedThread, chain: CallChain, *, entered: bool = False) -> Standing:
        if not entered:
            chain.trap("nt!KiIpiInterrupt", flags=0x246)
        self._calls(chain, "nt!KiIpiInterruptSubDispatch", "nt!KiFreezeTargetExecution")
        at = self.images.event_site("nt!KiFreezeTargetExecution")
        chain.stop(at)
        context = chain.context(at, {}, flags=0x46)
        return Standing(thread, chain, context, self._stale(thread), _HIGH_LEVEL, from_user=entered)

    def _bug_check(
        self,
        thread: SimulatedThread,
        chain: CallChain,
        bug_check: tuple[int, int, int, int, int],
        code: int,
        status: int,
        fault: int,
    ) -> Standing:
        bug_check = (code, *bug_check[1:])
        chain.call("nt!KeBugCheckEx", *bug_check)
        site = self.images.return_site("nt!KeBugCheckEx", "nt!RtlCaptureContext")
        caller = chain.context(site, {"rcx": code, "rdx": bug_check[1], "r8": bug_check[2], "r9": bug_check[3]})
        chain.call("nt!KeBugCheck2", *bug_check)
        saved = chain.reserve(_CONTEXT_AT, _encoded(caller))
        chain.call("nt!KiBugCheckDebugBreak", status)
        standing = self._break_with_status(thread, chain, status, _HIGH_LEVEL)
        return Standing(
            thread,
            chain,
            standing.context,
            standing.stale_context,
            _HIGH_LEVEL,
            fault_address=fault,
            break_status=status,
            bug_check=bug_check,
            saved_context=saved,
        )

    def _break_with_status(self, thread: SimulatedThread, chain: CallChain, status: int, level: int) -> Standing:
        chain.call("nt!DbgBreakPointWithStatus")
        at = self.images.address("nt!DbgBreakPointWithStatus")
        chain.stop(at)
        context = chain.context(at, {"rcx": status}, flags=0x202)
        return Standing(thread, chain, context, self._stale(thread), level, break_status=status)

    def _stale(self, thread: SimulatedThread) -> dict[str, int]:
        return {
            **context_frame(),
            "rip": self.images.return_site("nt!KiSwapContext", "nt!SwapContext"),
            "rsp": thread.stack_base - 0x400,
            "e_flags": 0x202,
        }


def _encoded(values: dict[str, int]) -> bytes:
    return AMD64.context.encode(values)
