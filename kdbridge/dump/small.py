"""Small dumps, type 4: pieces of memory by virtual address, of what a plan for small dumps names.

Registers come from the target's debugger and need no memory at all: whatever is missing, a small dump shows who it
is, why it stopped, and where every processor stands.
"""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

from kdbridge.discovery.processes import find_processes
from kdbridge.errors import DumpError
from kdbridge.log_blob import encode_log
from kdbridge.memory.files import DumpFile
from kdbridge.plan import Places, VirtualRange, Working, small_batches, working
from kdbridge.snapshot import Snapshot
from kdbridge.target import Processor, Target
from protocol.address import PageRuns
from protocol.arch import Architecture, architecture_of
from protocol.dumpfile.complete import UNREADABLE_PAGE
from protocol.dumpfile.header import DumpType
from protocol.dumpfile.triage import TriageContents, TriageDriver, TriageUnloaded, encode_triage
from protocol.errors import DumpFormatError

from .header import comment_of, header_of
from .held import HeldPages, held_among
from .log import log_of
from .patchwork import Patchwork, available
from .rendered import Rendered
from .whole import whole_file

__all__ = ["render_small", "told_pieces"]

_LARGEST_STACK = 0x18000


async def render_small(
    source: HeldPages, target: Target, path: Path, *, comment: str = "", partial: bool = False
) -> Rendered:
    """Write a small dump of what is held. Raises DumpError as `render` does; it needs an architecture only."""
    architecture = architecture_of(target.version.machine_type)
    if architecture is None:
        raise DumpError(f"a dump of {source.name} cannot be written: its architecture is not known")
    patchwork, reasons, missing, frames = await _gather(source, target)
    lacking = f"PARTIAL: {missing} pages of a small dump are missing" if missing else ""
    if missing and not partial:
        raise DumpError(f"{source.name} lacks {missing} of the pages of a small dump; --partial writes what there is")
    told, shortcomings = told_pieces(target, architecture)
    for address, data in told:
        patchwork.know(address, data)
    blocks = patchwork.blocks()
    contents = await _contents(source, target, blocks)
    header = header_of(target, architecture, comment_of(target, comment, lacking))
    held, unreadable = await held_among(source, frames)
    log = encode_log({**log_of(source, held, unreadable, missing), "pieces": reasons}, header.minor_version)
    try:
        data = b"".join(encode_triage(header, contents, log))
    except DumpFormatError as error:
        raise DumpError(f"{path} cannot be written: {error}") from None
    with whole_file(path, len(data)) as file:
        file.write(data)
    return Rendered(
        path=path,
        dump_type=DumpType.TRIAGE,
        size=len(data),
        pages=0,
        unreadable=0,
        missing=missing,
        overlaid=len(target.processors),
        shortcomings=tuple(shortcomings),
        pieces=len(blocks),
    )


async def _gather(source: HeldPages, target: Target) -> tuple[Patchwork, list[dict[str, object]], int, PageRuns]:
    """The pieces that are there, what for, how many pages are not, and which pages they all are."""
    patchwork = Patchwork()
    reasons: list[dict[str, object]] = []
    places = Places.of(source, target)
    missing = 0
    pages = PageRuns()
    async with aclosing(small_batches(source, target)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            size = 0
            for piece in batch.ranges:
                found = await available(source.virtual, piece.address, piece.size)
                size += sum(len(data) for _, data in found)
                patchwork.add(found)
            lacks = 0
            if places is not None:
                before = places.untold
                frames = await places.frames(batch.ranges)
                held, unreadable = await held_among(source, frames)
                lacks = (frames - held - unreadable).page_count + places.untold - before
                pages |= frames
            missing += lacks
            wanted = sum(piece.size for piece in batch.ranges)
            reasons.append({"for": batch.reason, "wanted": wanted, "there": size, "missing_pages": lacks})
    if isinstance(source, DumpFile) and source.small is not None:
        # Somebody found it worth keeping, whatever it was for.
        for address, size in source.small.memory.ranges():
            patchwork.add(await available(source.virtual, address, size))
    # What was read for a larger kind, and a small dump has room for: it is there, or it is not.
    for process in await find_processes(source, target):
        size = 0 if target.kdbg is None else target.kdbg.block["size_eprocess"]
        patchwork.add(await available(source.virtual, process.address, size))
    if places is None and isinstance(source, Snapshot) and source.reached is None:
        missing = max(missing, 1)
    return patchwork, reasons, missing, pages


def told_pieces(target: Target, architecture: Architecture) -> tuple[list[tuple[int, bytes]], list[str]]:
    """What the target told of its registers, its KDBG and its bug check, where a debugger looks for it in memory.

    And what it did not tell, in words.
    """
    told: list[tuple[int, bytes]] = []
    shortcomings: list[str] = []
    block = target.kdbg.block if target.kdbg is not None else None
    if block is None or target.kdbg is None:
        return told, ["no KDBG: a debugger will find no registers in this dump"]
    told.append((target.kdbg.address, block.raw))
    if target.bug_check_code is not None:
        values = (target.bug_check_code, *target.bug_check_parameters)
        told.append((block["ki_bugcheck_data"], b"".join(value.to_bytes(8, "little") for value in values)))
    if target.build_lab:
        told.append((block["nt_build_lab"], target.build_lab.encode("ascii", "replace") + b"\0"))
    for processor in target.processors:
        if processor.prcb is None:
            shortcomings.append(f"registers of processor {processor.number}")
            continue
        told.append((block["ki_processor_block"] + 8 * processor.number, processor.prcb.to_bytes(8, "little")))
        if processor.context is None or not processor.context_address:
            shortcomings.append(f"registers of processor {processor.number}")
            continue
        if block.has("offset_prcb_context") and block["offset_prcb_context"]:
            place = processor.prcb + block["offset_prcb_context"]
            told.append((place, processor.context_address.to_bytes(8, "little")))
        told.append((processor.context_address, processor.context.raw[: architecture.context.size]))
        if processor.special_registers is not None and block["offset_prcb_proc_state_special_reg"]:
            place = processor.prcb + block["offset_prcb_proc_state_special_reg"]
            told.append((place, processor.special_registers.raw))
    return told, shortcomings


async def _contents(source: HeldPages, target: Target, blocks: list[tuple[int, bytes]]) -> TriageContents:
    number = target.stop.processor if target.stop is not None else 0
    stopped = next((one for one in target.processors if one.number == number), None)
    doing = await working(source, target, stopped) if stopped is not None else None
    stack = doing.stack if doing is not None else None
    call_stack = b"" if stack is None else _start_of(blocks, stack)
    block = target.kdbg.block if target.kdbg is not None else None
    return TriageContents(
        prcb=_prcb(blocks, stopped, 0 if block is None else block["size_prcb"]),
        process=_object(blocks, doing, "process"),
        thread=_object(blocks, doing, "thread"),
        call_stack=call_stack or bytes(8),
        top_of_stack=0 if stack is None else stack.address,
        debugger_data=b"" if block is None else block.raw,
        drivers=tuple(
            TriageDriver(
                path=module.path or module.name, base=module.base, entry_point=module.entry_point, size=module.size,
                flags=0, check_sum=module.check_sum, time_date_stamp=module.time_date_stamp,
            )
            for module in target.modules
        ),
        unloaded=tuple(TriageUnloaded(one.name, one.start, one.end) for one in target.unloaded_modules),
        blocks=tuple(blocks),
    )  # fmt: skip


def _start_of(blocks: list[tuple[int, bytes]], piece: VirtualRange) -> bytes:
    """The bytes of a range from its beginning to the first that is not there."""
    for start, data in blocks:
        if start <= piece.address < start + len(data):
            at = piece.address - start
            return data[at : at + min(piece.size, _LARGEST_STACK)]
    return b""


def _prcb(blocks: list[tuple[int, bytes]], processor: Processor | None, size: int) -> bytes:
    """The stopped processor's KPRCB; what of it is not there is marked as WinDbg marks pages that it could not read."""
    prcb = bytearray((UNREADABLE_PAGE * (-(-size // len(UNREADABLE_PAGE)) or 1))[: size or 8])
    place = processor.prcb if processor is not None else None
    for start, data in blocks if place is not None else ():
        low, high = max(start, place or 0), min(start + len(data), (place or 0) + size)
        if low < high:
            prcb[low - (place or 0) : high - (place or 0)] = data[low - start : high - start]
    return bytes(prcb)


def _object(blocks: list[tuple[int, bytes]], doing: Working | None, what: str) -> bytes:
    piece = getattr(doing, what) if doing is not None else None
    data = b"" if piece is None else _start_of(blocks, piece)
    return data if piece is not None and len(data) == piece.size else b""
