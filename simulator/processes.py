"""Processes and threads: EPROCESS and KTHREAD objects, page tables of their own, and a little user memory."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from protocol.address import PAGE_SHIFT, PAGE_SIZE

from .paging import MIB2, PageTables, PteFlag
from .profile import KernelProfile
from .space import KernelSpace
from .stacks import StackFrame

__all__ = [
    "PROCESS_NAMES",
    "SimulatedProcess",
    "SimulatedThread",
    "build_process",
    "build_thread",
    "build_user_memory",
    "map_large_user_page",
]

PROCESS_NAMES: tuple[tuple[str, int], ...] = (
    ("smss.exe", 0),
    ("csrss.exe", 1),
    ("lab.exe", 1),
    ("wininit.exe", 0),
    ("services.exe", 0),
    ("winlogon.exe", 1),
    ("lsass.exe", 0),
    ("explorer.exe", 1),
    ("svchost.exe", 0),
    ("notepad.exe", 1),
    ("svchost.exe", 0),
)
"""Processes behind System and their sessions, in the order in which they are made; the last two come ever again."""

_RUNNING = 2
_USER_PAGE = PteFlag.USER | PteFlag.WRITE | PteFlag.NO_EXECUTE
_SHARED_USER_DATA = 0x7FFE0000


@dataclass(frozen=True, slots=True)
class SimulatedProcess:
    """A process. `tables` hold its user half and the kernel's; `teb` and `user_stack` are 0 where it has none."""

    address: int
    name: str
    process_id: int
    directory_table_base: int
    tables: PageTables
    peb: int = 0
    teb: int = 0
    image_base: int = 0
    user_stack: int = 0
    """Where rsp stood when a thread of it called the kernel."""
    session: int | None = None
    """The session whose kernel memory it sees."""
    user_directory_table_base: int = 0
    """Its second root (KVA shadow), 0 for none."""


@dataclass(frozen=True, slots=True)
class SimulatedThread:
    """A thread with its kernel stack; the base lies above. The last four are told of threads that wait."""

    address: int
    process: SimulatedProcess
    stack_base: int
    stack_limit: int
    thread_id: int = 0
    teb: int = 0
    kernel_stack: int = 0
    """KTHREAD.KernelStack: where rsp stood when another thread took its place; rbp and the return address lie there."""
    frames: tuple[StackFrame, ...] = ()
    """The call chain, innermost first, from the caller of what swapped it out."""


def build_user_memory(space: KernelSpace, tables: PageTables, shared_data: int) -> tuple[int, int, int, int]:
    """Map a small user half: shared data, image, PEB, TEB, stack. Returns (PEB, TEB, image base, stack pointer)."""
    rng = space.rng

    def map_user(address: int, data: bytes = b"", flags: PteFlag = _USER_PAGE) -> None:
        physical = space.frames.allocate() << PAGE_SHIFT
        tables.map(address, physical, PAGE_SIZE, flags)
        space.image.write(physical, data)

    tables.map(_SHARED_USER_DATA, shared_data, PAGE_SIZE, PteFlag.USER | PteFlag.NO_EXECUTE)
    image_base = 0x7FF6_0000_0000 + rng.randrange(1 << 16) * 0x10000
    map_user(image_base, b"MZ" + bytes(58) + struct.pack("<I", 0x80), PteFlag.USER)
    # A little code: every thread of it waits behind a syscall instruction.
    map_user(image_base + PAGE_SIZE, bytes.fromhex("4c8bd1 b806000000 0f05 c3") * 64, PteFlag.USER)
    block = rng.randrange(0x10, 0x100) << 32
    peb, teb = block + 0x2000, block + 0x3000
    map_user(peb, struct.pack("<QQQ", 0, 0, image_base))
    stack_base = block + 0x100000
    for page in range(1, 4):
        map_user(stack_base - page * PAGE_SIZE)
    map_user(teb, struct.pack("<QQQQQQQ", 0, stack_base, stack_base - 0x3000, 0, 0, 0, teb) + bytes(0x28)
             + struct.pack("<Q", peb))  # fmt: skip
    return peb, teb, image_base, stack_base - 0x200


def map_large_user_page(space: KernelSpace, process: SimulatedProcess, block: int) -> None:
    """2 MiB of user memory in one piece, from frame `block` on, with data at its beginning and end."""
    address = (process.teb & -(1 << 32)) + (1 << 31)
    process.tables.map(address, block << PAGE_SHIFT, MIB2, _USER_PAGE)
    for page in (block, block + 511):
        space.image.write(page << PAGE_SHIFT, space.rng.randbytes(PAGE_SIZE))


def build_process(
    space: KernelSpace,
    profile: KernelProfile,
    name: str,
    process_id: int,
    parent_id: int,
    tables: PageTables,
    shared_data: int | None,
    *,
    session: int | None = None,
    user_root: int = 0,
) -> SimulatedProcess:
    """An EPROCESS; with `shared_data` (a physical address) also a user half. List links come later."""
    layout = profile.eprocess
    peb = teb = image_base = user_stack = 0
    if shared_data is not None:
        peb, teb, image_base, user_stack = build_user_memory(space, tables, shared_data)
    address = space.nonpaged.allocate(layout.size, b"Proc", 64)
    space.write(address, b"\x03\x00\x90\x00")  # DISPATCHER_HEADER: a process
    space.write_qwords(address + 0x08, address + 0x08, address + 0x08)
    space.write_qwords(address + layout.directory_table_base, tables.root)
    space.write_qwords(address + layout.unique_process_id, process_id)
    space.write_qwords(address + layout.peb, peb)
    space.write_qwords(address + layout.parent_cid, parent_id)
    space.write(address + layout.image_file_name, name.encode("ascii")[:14].ljust(15, b"\0"))
    if layout.user_directory_table_base is not None and user_root:
        space.write_qwords(address + layout.user_directory_table_base, user_root)
    return SimulatedProcess(
        address, name, process_id, tables.root, tables, peb, teb, image_base, user_stack, session, user_root
    )


def build_thread(
    space: KernelSpace, profile: KernelProfile, process: SimulatedProcess, thread_id: int, processor: int
) -> SimulatedThread:
    """A running KTHREAD with a kernel stack."""
    layout = profile.kthread
    base, limit = space.allocate_stack()
    address = space.nonpaged.allocate(layout.size, b"Thre", 64)
    space.write(address, b"\x06\x00\xc6\x00")  # DISPATCHER_HEADER: a thread
    space.write_qwords(address + 0x08, address + 0x08, address + 0x08)
    for offset, value in (
        (layout.initial_stack, base),
        (layout.stack_limit, limit),
        (layout.stack_base, base),
        (layout.kernel_stack, base - 0x200),
        (layout.teb, process.teb),
        (layout.apc_process, process.address),
        (layout.process, process.address),
    ):
        space.write_qwords(address + offset, value)
    space.write_qwords(address + layout.client_id, process.process_id, thread_id)
    space.write(address + layout.state, bytes([_RUNNING]))
    space.write(address + layout.next_processor, struct.pack("<I", processor))
    return SimulatedThread(address, process, base, limit)
