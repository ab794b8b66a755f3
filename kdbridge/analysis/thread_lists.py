"""The list of a process's threads: by symbols where those hold on the memory, else by what a running thread proves."""

from __future__ import annotations

from kdbridge.discovery.notes import try_read_pointer
from kdbridge.discovery.processes import ThreadLinks, find_thread_links, threads_of
from kdbridge.source import Source
from kdbridge.target import Target
from protocol.address import format_address

from .model import Missing, ProcessFact
from .names import Names
from .processes import running_threads
from .shortcomings import unreadable

__all__ = ["listed_threads"]

_LISTS = (("_KPROCESS", "_KTHREAD"), ("_EPROCESS", "_ETHREAD"))
"""A thread is in two lists of its process: the kernel's and the executive's."""
_KPROCESS = 0x60
"""So far into a process its list heads are looked for without symbols."""


async def listed_threads(
    source: Source, target: Target, process: ProcessFact, names: Names
) -> tuple[tuple[int, ...], Missing | None]:
    """The threads of a process in the order of its list, as far as it can be walked, and what is missing of it."""
    best: tuple[int, ...] = ()
    problem: Missing | None = None
    for links in await _told(names):
        listed, end = await _walked(source, target, process, links)
        if end is None and listed:
            return listed, None
        if end is None:
            # Any empty list looks like this: it proves nothing.
            problem = problem or Missing(_of(process), "where symbols say that they are, none is listed")
        elif len(listed) > len(best):
            best, problem = listed, end
    guessed = await find_thread_links(source, target)
    if guessed is None:
        return best, problem or await _none_found(source, target)
    listed, end = await _walked(source, target, process, guessed)
    return (listed, end) if end is None or len(listed) >= len(best) else (best, problem)


def _of(process: ProcessFact) -> str:
    return f"threads of process {process.process_id}"


async def _told(names: Names) -> list[ThreadLinks]:
    """The lists that symbols know."""
    owner = await names.structure_offset("_KTHREAD", "Process")
    found: list[ThreadLinks] = []
    for process, thread in _LISTS:
        head = await names.structure_offset(process, "ThreadListHead")
        entry = await names.structure_offset(thread, "ThreadListEntry")
        if head is not None and entry is not None:
            found.append(ThreadLinks(head, entry, owner))
    return found


async def _walked(
    source: Source, target: Target, process: ProcessFact, links: ThreadLinks
) -> tuple[tuple[int, ...], Missing | None]:
    """One list as far as it leads to threads of this process, and where it breaks off; None: it does not."""
    listed, width = await threads_of(source, target, process.address, links), target.pointer_size
    head = process.address + links.head
    at = listed[-1] + links.entry if listed else head
    link = await try_read_pointer(source, at, width)
    if link == head:
        return listed, None
    behind = f"behind {format_address(listed[-1])}" if listed else "at its head"
    if link is None:
        gone = await unreadable(source, (at, width))
        return listed, Missing(_of(process), f"their list breaks off {behind}, which cannot be read", gone)
    thread = link - links.entry
    gone = await unreadable(source, (link, width))
    if gone:
        why = "which cannot be read"
    elif thread in listed:
        why = "where it was before"
    else:
        why = "where no thread of this process is"
    text = f"their list breaks off {behind}: it leads to {format_address(link)}, {why}"
    return listed, Missing(_of(process), text, gone)


async def _none_found(source: Source, target: Target) -> Missing:
    """Why no list could be proven, and what that lacked."""
    if target.kdbg is None:
        return Missing("threads", "without the KDBG nothing tells where threads are listed")
    running = await running_threads(source, target)
    if not running:
        return Missing("threads", "no list of threads was found: no processor tells which thread it runs")
    gone = await unreadable(source, *((process, _KPROCESS) for _, process in running.values()))
    return Missing("threads", "no list of threads was found that leads to a thread that runs", gone)
