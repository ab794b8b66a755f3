"""Threads with their ids and states, and where those that wait were switched out. Without symbols."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kdbridge.discovery.notes import try_read_pointer
from kdbridge.discovery.processes import find_thread_links, threads_of
from kdbridge.plan.threads import stack_of_thread
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.arch import AMD64, MachineType
from protocol.structure import Structure

from .client_id import client_id_offset, process_ids_of
from .model import ProcessFact, Stack, ThreadFact, Trust
from .names import Names
from .processes import running_threads
from .scan import Scanner
from .stack import walk
from .thread_states import NOT_SWITCHED_OUT, WAITING, state_name
from .unwind_data import UnwindTables

__all__ = ["current_thread", "thread_facts"]

_MOST_PROCESSES = 16
_MOST_OTHERS = 7
_SWITCH_FRAME = 0x80
"""The return address of what switched a thread out lies so near to its KernelStack, on every version."""


async def thread_facts(
    source: Source, target: Target, process: ProcessFact, names: Names, *, stacks: bool
) -> tuple[ThreadFact, ...]:
    """The threads of a process, in the order of its list, as far as that can be walked.

    With `stacks` of those that do not run the calls from where each was switched out, on x64; what runs has the
    processor's registers.
    """
    links = await find_thread_links(source, target)
    if links is None or target.kdbg is None:
        return ()
    addresses = await threads_of(source, target, process.address, links)
    if not addresses:
        return ()
    now = await running_threads(source, target)
    running = {thread: number for number, (thread, _) in now.items()}
    others = [(thread, process.process_id) for thread in addresses[1:]] or await _with_ids(source, target, now)
    offset = await client_id_offset(source, target, addresses[0], process.process_id, others)
    found: list[ThreadFact] = []
    for address in addresses:
        fact = await _fact(source, target, address, process.process_id, offset, running.get(address))
        found.append(replace(fact, stack=await _stack(source, target, names, fact)) if stacks else fact)
    return tuple(found)


async def current_thread(source: Source, target: Target, processor: int) -> ThreadFact | None:
    """The thread that a processor runs; None where its KPRCB does not tell it."""
    # A few others suffice to prove where an id lies.
    others = [one.number for one in target.processors if one.number != processor][:_MOST_OTHERS]
    now = await running_threads(source, target, [processor, *others])
    if processor not in now:
        return None
    thread, process = now[processor]
    process_id = (await process_ids_of(source, target, [process])).get(process)
    offset = await client_id_offset(source, target, thread, process_id, await _with_ids(source, target, now))
    return await _fact(source, target, thread, process_id, offset, processor)


async def _with_ids(source: Source, target: Target, running: Mapping[int, tuple[int, int]]) -> list[tuple[int, int]]:
    """What processors run, with their processes' ids where they have one: an idle thread has none."""
    processes = list(dict.fromkeys(process for _, process in running.values()))[:_MOST_PROCESSES]
    ids = await process_ids_of(source, target, processes)
    return [(thread, ids[process]) for thread, process in running.values() if ids.get(process)]


async def _fact(
    source: Source, target: Target, address: int, process_id: int | None, offset: int | None, processor: int | None
) -> ThreadFact:
    width = target.pointer_size
    block = target.kdbg.block if target.kdbg is not None else None
    thread_id = None if offset is None else await try_read_pointer(source, address + offset + width, width)
    state = await _byte(source, address, block["offset_kthread_state"]) if block is not None else None
    reason = None
    if block is not None and state == WAITING:
        reason = await _byte(source, address, block["offset_kthread_wait_reason"])
    return ThreadFact(address, process_id, thread_id, state_name(state, reason), processor)


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
    return replace(found, frames=(first, *found.frames[1:]))
