"""Kernel memory that not every process sees: that of a session, and what each process has for itself alone."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from dataclasses import fields

from protocol.address import PAGE_SHIFT, PAGE_SIZE

from .paging import GIB, MIB2, PageTables, PteFlag
from .processes import SimulatedProcess
from .profile import KernelProfile
from .space import SYSTEM_RANGE_START, AddressPlan, KernelSpace
from .transition import lay_transition

__all__ = ["lay_private_memory", "lay_session", "private_slots"]

_OLD_SESSION_SLOT, _OLD_PRIVATE_SLOT = 0x1F2, 0x1EE
"""FFFFF900'00000000 and FFFFF700'00000000: session space and hyperspace until Windows 10 1607."""

_DATA = PteFlag.WRITE | PteFlag.NO_EXECUTE


def private_slots(addresses: AddressPlan, rng: random.Random, *, randomized: bool) -> tuple[int, int]:
    """The PML4 slots of session space and of what each process has for itself: slots that nothing else is in."""
    if not randomized:
        return _OLD_SESSION_SLOT, _OLD_PRIVATE_SLOT
    taken = {getattr(addresses, field.name) >> 39 & 511 for field in fields(addresses)} | {addresses.self_map_slot}
    session, private = rng.sample([slot for slot in range(0x101, 0x1EE) if slot not in taken], 2)
    return session, private


def lay_session(
    space: KernelSpace,
    profile: KernelProfile,
    number: int,
    slot: int,
    members: list[SimulatedProcess],
    transition_pages: int,
    rng: random.Random,
) -> None:
    """Session `number`: MM_SESSION_SPACE, a pool, an image, a large page; the same tables in all its processes."""
    first, *others = members
    base = _start_of(slot)
    head = struct.pack("<III", len(members), 0, number)
    _map(space, first.tables, base, _DATA, head + rng.randbytes(PAGE_SIZE - len(head)))
    for page in range(1, rng.randrange(8, 24)):
        _map(space, first.tables, base + MIB2 + page * PAGE_SIZE, _DATA, rng.randbytes(PAGE_SIZE))
    for page in range(rng.randrange(2, 6)):
        _map(space, first.tables, base + GIB + page * PAGE_SIZE, PteFlag(0), rng.randbytes(PAGE_SIZE))
    block = space.frames.allocate_block(512, 512) if space.large_pages else None
    if block is not None:
        first.tables.map(base + 2 * GIB, block << PAGE_SHIFT, MIB2, _DATA)
        space.image.write(block + rng.randrange(512) << PAGE_SHIFT, rng.randbytes(PAGE_SIZE))
    lay_transition(space, first.tables, base + 3 * GIB, transition_pages, rng)
    for member in others:
        first.tables.share(member.tables, [slot])
    for member in members:
        space.write_qwords(member.address + profile.eprocess.session, base)


def lay_private_memory(
    space: KernelSpace, slot: int, processes: Iterable[SimulatedProcess], transition_pages: int, rng: random.Random
) -> None:
    """Two pages for each process, and some in transition, at the same addresses in all of them."""
    base = _start_of(slot)
    for process in processes:
        for page in range(2):
            _map(space, process.tables, base + page * PAGE_SIZE, _DATA, rng.randbytes(PAGE_SIZE))
        lay_transition(space, process.tables, base + MIB2, transition_pages, rng)


def _start_of(slot: int) -> int:
    return SYSTEM_RANGE_START + (slot - 0x100 << 39)


def _map(space: KernelSpace, tables: PageTables, address: int, flags: PteFlag, data: bytes) -> None:
    physical = space.frames.allocate() << PAGE_SHIFT
    tables.map(address, physical, PAGE_SIZE, flags)
    space.image.write(physical, data)
