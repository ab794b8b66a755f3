"""A thread's kernel stack, and what a processor works on: by the offsets that the target's KDBG gives."""

from __future__ import annotations

from dataclasses import dataclass

from kdbridge.discovery.notes import try_read_pointer
from kdbridge.source import Source
from kdbridge.target import Processor, Target
from protocol.address import PAGE_SIZE
from protocol.arch import architecture_of

from .bug_check_data import is_kernel_address
from .plan import VirtualRange

__all__ = ["LARGEST_STACK", "Working", "stack_of_thread", "working"]

LARGEST_STACK = 0x18000
"""No kernel stack of x64 is larger (24 KiB usually, 96 KiB where one was grown)."""
_FOREIGN_STACK = 0x2000
"""Read of a stack that is not the thread's: an interrupt's, a DPC's."""
_THREAD, _PROCESS = 0x800, 0xA00
"""Sizes where the KDBG is too old to tell them."""


@dataclass(frozen=True, slots=True)
class Working:
    """What one processor does: its thread, the thread's process, and the part of a stack that is in use."""

    processor: Processor
    thread: VirtualRange | None
    process: VirtualRange | None
    stack: VirtualRange | None


async def working(source: Source, target: Target, processor: Processor) -> Working:
    """As far as it can be read. The stack begins at the stack pointer, or where a thread that left it will go on."""
    block = target.kdbg.block if target.kdbg is not None else None
    if block is None or processor.prcb is None:
        return Working(processor, None, None, _stack_by_pointer(target, processor, None))
    at = await try_read_pointer(source, processor.prcb + block["offset_prcb_current_thread"])
    if not at or not is_kernel_address(at):
        return Working(processor, None, None, _stack_by_pointer(target, processor, None))
    thread = VirtualRange(at, block["size_ethread"] or _THREAD)
    owner = await try_read_pointer(source, at + block["offset_kthread_apc_process"])
    process = VirtualRange(owner, block["size_eprocess"] or _PROCESS) if owner and is_kernel_address(owner) else None
    bounds = await _bounds(source, target, at)
    return Working(processor, thread, process, _stack_by_pointer(target, processor, bounds))


async def stack_of_thread(source: Source, target: Target, thread: int) -> VirtualRange | None:
    """What is in use of the stack of a thread that is not running: from KernelStack to its base."""
    bounds = await _bounds(source, target, thread)
    if bounds is None or target.kdbg is None:
        return None
    low, high = bounds
    at = await try_read_pointer(source, thread + target.kdbg.block["offset_kthread_kernel_stack"])
    # A running thread's KernelStack is stale, and a broken one's is anything: then all of the stack it is.
    start = at if at is not None and low <= at < high else low
    return VirtualRange(start, high - start)


async def _bounds(source: Source, target: Target, thread: int) -> tuple[int, int] | None:
    """Limit and base of a thread's stack."""
    block = target.kdbg.block if target.kdbg is not None else None
    if block is None:
        return None
    if block.has("offset_kthread_stack_base") and block["offset_kthread_stack_base"]:
        base = await try_read_pointer(source, thread + block["offset_kthread_stack_base"])
        limit = await try_read_pointer(source, thread + block["offset_kthread_stack_limit"])
    else:
        base = await try_read_pointer(source, thread + block["offset_kthread_initial_stack"])
        limit = None if base is None else base - 6 * PAGE_SIZE
    if base is None or limit is None or not is_kernel_address(limit) or not limit < base <= limit + LARGEST_STACK:
        return None
    return limit, base


def _stack_by_pointer(target: Target, processor: Processor, bounds: tuple[int, int] | None) -> VirtualRange | None:
    architecture = architecture_of(target.version.machine_type)
    if architecture is None or processor.context is None:
        return None
    pointer = processor.context[architecture.stack_pointer]
    if not is_kernel_address(pointer):
        return None
    if bounds is not None and bounds[0] <= pointer < bounds[1]:
        return VirtualRange(pointer, bounds[1] - pointer)
    # At most two pages: what lies above an interrupt's stack is another's.
    end = (pointer & ~(PAGE_SIZE - 1)) + _FOREIGN_STACK
    return VirtualRange(pointer, min(end, 1 << 64) - pointer)
