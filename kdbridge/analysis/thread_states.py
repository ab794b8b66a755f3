"""States of threads and what they wait for, in Microsoft's words (KTHREAD_STATE, KWAIT_REASON of wdm.h)."""

from __future__ import annotations

__all__ = ["NOT_SWITCHED_OUT", "UNKNOWN_STATE", "WAITING", "is_reason", "state_name"]

WAITING = 5
UNKNOWN_STATE = "state not known"
NOT_SWITCHED_OUT = frozenset({"initialized", "running", "terminated", UNKNOWN_STATE})
"""States whose KernelStack does not tell where the thread will go on."""

_STATES = (
    "initialized", "ready", "running", "standby", "terminated", "waiting", "transition", "deferred ready", "gate wait",
    "waiting for process in swap",
)  # fmt: skip
_REASONS = (
    "Executive", "FreePage", "PageIn", "PoolAllocation", "DelayExecution", "Suspended", "UserRequest", "WrExecutive",
    "WrFreePage", "WrPageIn", "WrPoolAllocation", "WrDelayExecution", "WrSuspended", "WrUserRequest", "WrSpare0",
    "WrQueue", "WrLpcReceive", "WrLpcReply", "WrVirtualMemory", "WrPageOut", "WrRendezvous", "WrKeyedEvent",
    "WrTerminated", "WrProcessInSwap", "WrCpuRateControl", "WrCalloutStack", "WrKernel", "WrResource", "WrPushLock",
    "WrMutex", "WrQuantumEnd", "WrDispatchInt", "WrPreempted", "WrYieldExecution", "WrFastMutex", "WrGuardedMutex",
    "WrRundown", "WrAlertByThreadId", "WrDeferredPreempt",
)  # fmt: skip


def is_reason(reason: int) -> bool:
    """Whether something may be waited for by this number."""
    return reason < len(_REASONS)


def state_name(state: int | None, reason: int | None) -> str:
    """ "waiting (UserRequest)". "state not known" where there is none; a number where it has no name."""
    if state is None:
        return UNKNOWN_STATE
    name = _STATES[state] if state < len(_STATES) else f"state {state}"
    if state != WAITING or reason is None:
        return name
    return f"{name} ({_REASONS[reason] if reason < len(_REASONS) else f'reason {reason}'})"
