"""Threads with their ids and states, and where those that wait were switched out. Symbols help, and need not be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kdbridge.discovery.notes import try_read_pointer
from kdbridge.plan.threads import stack_of_thread
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import format_address
from protocol.arch import AMD64, MachineType
from protocol.structure import Structure

from .client_id import client_id_offset, process_ids_of
from .model import Missing, ProcessFact, Stack, ThreadFact, Trust
from .names import Names
from .processes import running_threads
from .scan import Scanner
from .shortcomings import unreadable
from .stack import doubted, walk
from .thread_lists import listed_threads
from .thread_states import NOT_SWITCHED_OUT, UNKNOWN_STATE, WAITING, is_reason, state_name
from .unwind_data import UnwindTables

__all__ = ["current_thread", "thread_facts"]

_MOST_PROCESSES = 16
_MOST_OTHERS = 7
_SWITCH_FRAME = 0x80
"""The return address of what switched a thread out lies so near to its KernelStack, on every version."""


async def thread_facts(
    source: Source, target: Target, process: ProcessFact, names: Names, *, stacks: bool
) -> tuple[tuple[ThreadFact, ...], tuple[Missing, ...]]:
    """The threads of a process, in the order of its list as far as that can be walked, and what could not be found out.

    With `stacks` of those that do not run the calls from where each was switched out, on x64; what runs has the
    processor's registers.
    """
    addresses, problem = await listed_threads(source, target, process, names)
    missing = (problem,) if problem is not None else ()
    if not addresses:
        return (), missing
    now = await running_threads(source, target)
    running = {thread: number for number, (thread, _) in now.items()}
    others = [(thread, process.process_id) for thread in addresses[1:]] or await _with_ids(source, target, now, names)
    offset = await client_id_offset(source, target, addresses[0], process.process_id, others, names)
    found: list[ThreadFact] = []
    for address in addresses:
        fact = await _fact(source, target, names, address, process.process_id, offset, running.get(address))
        found.append(replace(fact, stack=await _stack(source, target, names, fact)) if stacks else fact)
    return tuple(found), (*missing, *await _not_told(source, target, found, offset))


async def current_thread(
    source: Source, target: Target, processor: int, names: Names
) -> tuple[ThreadFact | None, tuple[Missing, ...]]:
    """The thread that a processor runs (None where its KPRCB does not tell it), and what could not be found out."""
    # A few others suffice to prove where an id lies.
    others = [one.number for one in target.processors if one.number != processor][:_MOST_OTHERS]
    now = await running_threads(source, target, [processor, *others])
    if processor not in now:
        return None, (await _no_thread(source, target, processor),)
    thread, process = now[processor]
    process_id = (await process_ids_of(source, target, [process], names)).get(process)
    others_running = await _with_ids(source, target, now, names)
    offset = await client_id_offset(source, target, thread, process_id, others_running, names)
    fact = await _fact(source, target, names, thread, process_id, offset, processor)
    missing = () if process_id is not None else (await _no_process(source, target, thread, process),)
    return fact, (*missing, *await _not_told(source, target, [fact], offset))


async def _no_thread(source: Source, target: Target, processor: int) -> Missing:
    what = "the current thread"
    if target.kdbg is None:
        return Missing(what, "without the KDBG nothing tells which thread a processor runs")
    offset, width = target.kdbg.block["offset_prcb_current_thread"], target.pointer_size
    prcb = next((one.prcb for one in target.processors if one.number == processor), None)
    if prcb is None or not offset:
        return Missing(what, f"nothing tells where the KPRCB of processor {processor} names it")
    gone = await unreadable(source, (prcb + offset, width))
    why = "cannot be read" if gone else "names none"
    return Missing(what, f"the KPRCB of processor {processor} at {format_address(prcb)} {why}", gone)


async def _no_process(source: Source, target: Target, thread: int, process: int) -> Missing:
    what, width = "the current thread's process", target.pointer_size
    block = target.kdbg.block if target.kdbg is not None else None
    if block is None:
        return Missing(what, "without the KDBG nothing tells where a thread names it")
    if not process:
        gone = await unreadable(source, (thread + block["offset_kthread_apc_process"], width))
        why = "cannot be read" if gone else "names none"
        return Missing(what, f"the thread at {format_address(thread)} {why}", gone)
    head = block["ps_active_process_head"]
    first = await try_read_pointer(source, head, width)
    gone = await unreadable(source, (head, width), *([(first - width, 2 * width)] if first else []))
    return Missing(what, f"System does not bear out where the EPROCESS at {format_address(process)} has its id", gone)


async def _not_told(
    source: Source, target: Target, facts: Sequence[ThreadFact], offset: int | Missing
) -> list[Missing]:
    """What is missing of threads that were found. An idle thread has no id."""
    missing: list[Missing] = []
    block, width = target.kdbg.block if target.kdbg is not None else None, target.pointer_size
    lost = [one.address for one in facts if one.thread_id is None and one.process_id != 0]
    if lost and isinstance(offset, Missing):
        missing.append(offset)
    elif lost and not isinstance(offset, Missing):
        gone = await unreadable(source, *((address + offset + width, width) for address in lost))
        missing.append(Missing("ids of threads", f"those of {len(lost)} of {len(facts)} cannot be read", gone))
    lost = [one.address for one in facts if one.state == UNKNOWN_STATE]
    if lost and block is not None:
        at = block["offset_kthread_state"]
        gone = await unreadable(source, *((address + at, 1) for address in lost)) if at else ()
        why = f"those of {len(lost)} of {len(facts)} cannot be read"
        why = why if at else "the KDBG does not tell where they stand"
        missing.append(Missing("states of threads", why, gone))
    return missing


async def _with_ids(
    source: Source, target: Target, running: Mapping[int, tuple[int, int]], names: Names
) -> list[tuple[int, int]]:
    """What processors run, with their processes' ids where they have one: an idle thread has none."""
    processes = list(dict.fromkeys(process for _, process in running.values()))[:_MOST_PROCESSES]
    ids = await process_ids_of(source, target, processes, names)
    return [(thread, ids[process]) for thread, process in running.values() if ids.get(process)]


async def _fact(
    source: Source,
    target: Target,
    names: Names,
    address: int,
    process_id: int | None,
    offset: int | Missing,
    processor: int | None,
) -> ThreadFact:
    width = target.pointer_size
    block = target.kdbg.block if target.kdbg is not None else None
    thread_id = None if isinstance(offset, Missing) else await try_read_pointer(source, address + offset + width, width)
    state = await _byte(source, address, block["offset_kthread_state"]) if block is not None else None
    reason = None
    if block is not None and state == WAITING:
        reason = await _wait_reason(source, address, block, names)
    return ThreadFact(address, process_id, thread_id, state_name(state, reason), processor)


async def _wait_reason(source: Source, thread: int, block: Structure, names: Names) -> int | None:
    """What it waits for. Older KDBGs do not tell where that is; symbols may, if they know where the state is."""
    if block["offset_kthread_wait_reason"]:
        return await _byte(source, thread, block["offset_kthread_wait_reason"])
    if await names.structure_offset("_KTHREAD", "State") != block["offset_kthread_state"]:
        return None
    told = await names.structure_offset("_KTHREAD", "WaitReason")
    reason = await _byte(source, thread, told) if told is not None else None
    return reason if reason is not None and is_reason(reason) else None


async def _byte(source: Source, address: int, offset: int) -> int | None:
    """A byte of a structure; None where the KDBG does not tell its place (0), or it cannot be read."""
    return await try_read_pointer(source, address + offset, 1) if offset else None


async def _stack(source: Source, target: Target, names: Names, thread: ThreadFact) -> Stack | None:
    if thread.processor is not None:
        context = next((one.context for one in target.processors if one.number == thread.processor), None)
        if context is None:
            return None
        return await walk(source, target, names, context, processor=thread.processor, thread=thread.address)
    block = target.kdbg.block if target.kdbg is not None else None
    if block is None or thread.state in NOT_SWITCHED_OUT or target.version.machine_type != MachineType.AMD64:
        return None
    return await _switched_out(source, target, names, thread.address, block)


async def _switched_out(source: Source, target: Target, names: Names, thread: int, block: Structure) -> Stack | None:
    """From where the thread was switched out: KernelStack is where its stack pointer stood, and just above it lies the
    address that the switch returns to. That address is looked for, so the first frame is marked as a guess."""
    stack = await stack_of_thread(source, target, thread)
    pointer = await try_read_pointer(source, thread + block["offset_kthread_kernel_stack"])
    if stack is None or pointer != stack.address:
        return None
    scanner = Scanner(source, names, UnwindTables(source))
    guess = await scanner.next(pointer, min(pointer + _SWITCH_FRAME, stack.address + stack.size))
    if guess is None:
        return None
    values = {"rip": guess.address, "rsp": guess.slot + 8}
    context = AMD64.context.decode(AMD64.context.encode(values))
    known = frozenset(values)
    found = await walk(source, target, names, context, known=known, thread=thread)
    if not found.frames:
        return found
    first = replace(found.frames[0], trust=Trust.SCANNED, note="the thread was switched out here")
    return doubted(replace(found, frames=(first, *found.frames[1:])))
