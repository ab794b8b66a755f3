"""Where each processor stands when the machine stops: whose stack, which calls, which registers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .processes import SimulatedThread
from .stacks import CallChain, LoadedImages, context_frame

__all__ = ["Situations", "Standing", "ThreadKind"]

ThreadKind = Literal["idle", "system", "user", "critical"]
"""Whose it is: critical is a process without which Windows does not go on."""

_CLOCK_LEVEL, _HIGH_LEVEL = 13, 15
_CONTROL_C = 1
"""DBG_STATUS_CONTROL_C (kd-protocol 7.1)."""


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
    guilty: str = ""
    """The module that made the machine stop."""
    crash_site: int = 0
    """The instruction that raised the exception (0: there was none)."""


class Situations:
    """The stacks of processors that did not crash. Each method is one of them, from its outermost call inwards."""

    def __init__(
        self,
        images: LoadedImages,
        rng: random.Random,
        pool: tuple[int, ...],
        new_thread: Callable[[ThreadKind], SimulatedThread],
    ) -> None:
        self.images, self.rng, self.pool, self.new_thread = images, rng, pool, new_thread

    # ---- processors that are frozen while another one talks ------------------------------------------------

    def frozen(self, number: int) -> Standing:
        """What processor `number` was doing."""
        return (self.idle, self.spinning, self.system_call, self.in_user_mode)[number % 4]()

    def idle(self) -> Standing:
        """Asleep in the idle loop when the interprocessor interrupt came."""
        thread, chain = self.start("idle")
        self.calls(chain, "nt!KiIdleLoop", "nt!PoIdle", "nt!PpmIdleExecuteTransition", "intelppm!MWaitIdle")
        return self._frozen(thread, chain)

    def spinning(self) -> Standing:
        """In a DPC, waiting for a spin lock."""
        thread, chain = self.start("idle")
        self.calls(
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
        thread, chain = self.start("user")
        self.enter_from_user(thread, chain, "nt!KiSystemCall64")
        self.calls(
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
        thread, chain = self.start("user")
        self.enter_from_user(thread, chain, "nt!KiIpiInterrupt")
        return self._frozen(thread, chain, entered=True)

    # ---- the processor that stopped ------------------------------------------------------------------------

    def broken_in(self) -> Standing:
        """The clock interrupt saw the debugger's break-in byte."""
        thread, chain = self.start("idle")
        self.calls(chain, "nt!KiIdleLoop", "nt!PoIdle", "nt!PpmIdleExecuteTransition", "intelppm!MWaitIdle")
        chain.trap("nt!KiInterruptDispatchNoLockNoEtw", flags=0x246)
        self.calls(
            chain,
            "nt!KiInterruptSubDispatchNoLockNoEtw",
            "nt!KiCallInterruptServiceRoutine",
            "nt!HalpTimerClockInterrupt",
            "nt!KeClockInterruptNotify",
            "nt!KeAccumulateTicks",
            "nt!KdCheckForDebugBreak",
        )
        return self.break_with_status(thread, chain, _CONTROL_C, _CLOCK_LEVEL)

    def driver_breakpoint(self) -> Standing:
        """A driver's own int3."""
        thread, chain = self.start("system")
        self.worker(chain)
        chain.call("mydrv!CheckQueue")
        at = self.images.event_site("mydrv!CheckQueue")
        chain.stop(at)
        context = chain.context(at, {"rcx": self.rng.choice(self.pool)})
        return Standing(thread, chain, context, self._stale(thread), 0, guilty="mydrv", crash_site=at)

    # ---- parts ---------------------------------------------------------------------------------------------

    def start(self, kind: ThreadKind) -> tuple[SimulatedThread, CallChain]:
        """A thread of this kind, and its stack, on which nothing was called yet."""
        thread = self.new_thread(kind)
        return thread, CallChain(self.images, thread.stack_base, thread.stack_limit, self.rng, self.pool)

    @staticmethod
    def calls(chain: CallChain, *symbols: str) -> None:
        """One after the other, each by the one before."""
        for symbol in symbols:
            chain.call(symbol)

    def worker(self, chain: CallChain, driver: str = "mydrv") -> None:
        """A system thread that carries out a work item of a driver."""
        self.calls(
            chain,
            "nt!KiStartSystemThread",
            "nt!PspSystemThreadStartup",
            "nt!ExpWorkerThread",
            "nt!IopProcessWorkItem",
            f"{driver}!FlushWorkItem",
            f"{driver}!FlushQueue",
        )

    def enter_from_user(self, thread: SimulatedThread, chain: CallChain, handler: str) -> None:
        """A program calls the kernel, or is interrupted."""
        # Behind the syscall instruction of a stub in the process's code page.
        instruction = thread.process.image_base + 0x1000 + 11 * self.rng.randrange(8) + 10
        chain.enter_kernel(instruction, thread.process.user_stack)
        chain.trap(handler, flags=0x246)

    def _frozen(self, thread: SimulatedThread, chain: CallChain, *, entered: bool = False) -> Standing:
        if not entered:
            chain.trap("nt!KiIpiInterrupt", flags=0x246)
        self.calls(chain, "nt!KiIpiInterruptSubDispatch", "nt!KiFreezeTargetExecution")
        at = self.images.event_site("nt!KiFreezeTargetExecution")
        chain.stop(at)
        context = chain.context(at, {}, flags=0x46)
        return Standing(thread, chain, context, self._stale(thread), _HIGH_LEVEL, from_user=entered)

    def break_with_status(self, thread: SimulatedThread, chain: CallChain, status: int, level: int) -> Standing:
        """The kernel tells its debugger."""
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
