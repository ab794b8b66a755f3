"""Threads that do not run: each waits on a stack of its own, and all are in the lists of their processes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from protocol.address import PAGE_SHIFT, PAGE_SIZE

from .paging import PteFlag
from .processes import SimulatedProcess, SimulatedThread, build_thread
from .profile import KernelProfile
from .space import KernelSpace
from .stacks import CallChain, LoadedImages

__all__ = ["build_waiting_thread", "link_threads"]

_WAITING = 5
_WAIT_REASONS = {"user": 6, "system": 15}
"""UserRequest, WrQueue."""

_USER_PAGE = PteFlag.USER | PteFlag.WRITE | PteFlag.NO_EXECUTE
_SYSTEM_CALL_RETURN = 0x1000 + 10
"""Behind the first syscall instruction of an image."""


def build_waiting_thread(
    space: KernelSpace,
    profile: KernelProfile,
    images: LoadedImages,
    process: SimulatedProcess,
    thread_id: int,
    rng: random.Random,
) -> SimulatedThread:
    """A thread that waits for an object, or a worker that waits for work; a user thread has pages of its own."""
    layout = profile.kthread
    teb = user_stack = 0
    if process.image_base:
        teb, user_stack = _build_user_pages(space, process, thread_id, rng)
    made = build_thread(space, profile, process, thread_id, 0)
    chain = CallChain(images, made.stack_base, made.stack_limit, rng)
    if user_stack:
        chain.enter_kernel(process.image_base + _SYSTEM_CALL_RETURN, user_stack)
        chain.trap("nt!KiSystemCall64", flags=0x246)
        calls = ["nt!NtWaitForSingleObject", "nt!KeWaitForSingleObject"]
    else:
        calls = ["nt!KiStartSystemThread", "nt!PspSystemThreadStartup", "nt!ExpWorkerThread", "nt!KeRemovePriQueue"]
    for symbol in (*calls, "nt!KiSwapThread", "nt!KiSwapContext", "nt!SwapContext"):
        chain.call(symbol)
    chain.stop()
    space.write(made.stack_limit, bytes(chain.memory))
    space.write_qwords(made.address + layout.kernel_stack, chain.stack_pointer)
    space.write_qwords(made.address + layout.teb, teb)
    space.write(made.address + layout.state, bytes([_WAITING]))
    space.write(made.address + layout.wait_reason, bytes([_WAIT_REASONS["user" if user_stack else "system"]]))
    return SimulatedThread(
        made.address,
        process,
        made.stack_base,
        made.stack_limit,
        thread_id=thread_id,
        teb=teb,
        kernel_stack=chain.stack_pointer,
        frames=tuple(chain.frames[1:]),
    )


def _build_user_pages(
    space: KernelSpace, process: SimulatedProcess, thread_id: int, rng: random.Random
) -> tuple[int, int]:
    """TEB and stack of a thread: (TEB, where its stack pointer stands)."""
    base = (process.teb & -(1 << 32)) + 0x1000000 + thread_id * 0x10000
    for page in range(2):
        physical = space.frames.allocate() << PAGE_SHIFT
        process.tables.map(base + page * PAGE_SIZE, physical, PAGE_SIZE, _USER_PAGE)
        space.image.write(physical, rng.randbytes(PAGE_SIZE))
    teb = base + 0x8000
    physical = space.frames.allocate() << PAGE_SHIFT
    process.tables.map(teb, physical, PAGE_SIZE, _USER_PAGE)
    top = base + 2 * PAGE_SIZE
    values = (0, top, base, 0, 0, 0, teb, 0, process.process_id, thread_id, 0, 0, process.peb)
    space.image.write(physical, b"".join(value.to_bytes(8, "little") for value in values))
    return teb, top - 0x200


def link_threads(
    space: KernelSpace,
    profile: KernelProfile,
    processes: Iterable[SimulatedProcess],
    threads: Sequence[SimulatedThread],
) -> None:
    """Both lists of each process: the kernel's in KPROCESS, the executive's in EPROCESS."""
    process_layout, layout = profile.eprocess, profile.kthread
    for process in processes:
        own = [thread.address for thread in threads if thread.process.address == process.address]
        for head, entry in (
            (process_layout.thread_list_head, layout.thread_list_entry),
            (process_layout.threads_of_process, layout.process_list_entry),
        ):
            space.link_list(process.address + head, [thread + entry for thread in own])
        profiles = process.address + process_layout.directory_table_base - 0x10
        space.write_qwords(profiles, profiles, profiles)  # KPROCESS.ProfileListHead: empty
