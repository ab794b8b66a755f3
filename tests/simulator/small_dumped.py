"""A simulated kernel as a small dump, as Windows makes one: pieces of memory, and without kdbridge."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.dumpfile.secondary import encode_secondary
from protocol.dumpfile.triage import (
    TriageBlock,
    TriageContents,
    TriageDriver,
    TriageLayout,
    TriageUnloaded,
    encode_triage,
)
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel
from tests.simulator.dumped import header_of, with_true_contexts

__all__ = ["BLOB", "SmallDumped", "contents_of", "small_dumped", "small_machine"]

BLOB = ("54c84888-01d1-4e1e-bed7-28c8cbcbd8a0", b"left by a driver")
_STACK = 0x600
_WINDOW = 0x100


@dataclass(frozen=True, slots=True)
class SmallDumped:
    """The file, and what is in it."""

    data: bytes
    blocks: tuple[tuple[int, bytes], ...]
    contents: TriageContents


def small_machine(**options: object) -> SimulatedKernel:
    """Three processors, of which the second stopped."""
    known = {"seed": 5, "processors": 3, "stopped_processor": 1, "memory_size": 16 << 20, "content_size": 0}
    return build_kernel(KernelOptions(**{**known, **options}))  # type: ignore[arg-type]


def small_dumped(kernel: SimulatedKernel) -> SmallDumped:
    """In blocks: KiProcessorBlock, and of every processor KPRCB, CONTEXT, a part of its stack and what rip points to.

    As in Windows' own files the lists of images, KiBugCheckData, the GDTs and KUSER_SHARED_DATA are in none, and
    neither are KDBG, process and thread, which have sections.
    """
    image = with_true_contexts(kernel)

    def memory(address: int, size: int) -> bytes:
        parts = []
        while size:
            length = min(size, 0x1000 - address % 0x1000)
            place = kernel.tables.translate(address)
            parts.append(image.read(place, length) if place is not None else None)
            address, size = address + length, size - length
        assert None not in parts
        return b"".join(part for part in parts if part is not None)

    symbols, block = kernel.symbols, kernel.kdbg
    count = len(kernel.processors)
    places = [(symbols["KiProcessorBlock"], 8 * count), (symbols["NtBuildLab"], _WINDOW)]
    for processor in kernel.processors:
        stack = processor.context_values["rsp"]
        places += [
            (processor.prcb, block["size_prcb"]),
            (processor.context_address, len(processor.context())),
            (stack, min(_STACK, processor.stack_base - stack)),
            (processor.context_values["rip"] - 0x40, _WINDOW),
        ]
    # A CONTEXT may lie in its KPRCB, and idle processors stand at the same instruction.
    kept: list[tuple[int, int]] = []
    for address, size in places:
        if not any(other < address + size and address < other + length for other, length in kept):
            kept.append((address, size))
    blocks = tuple((address, memory(address, size)) for address, size in kept)
    stopped = kernel.processors[kernel.stopped_processor]
    top = stopped.context_values["rsp"]
    contents = TriageContents(
        prcb=memory(stopped.prcb, block["size_prcb"]),
        process=memory(stopped.process, block["size_eprocess"]),
        thread=memory(stopped.thread, block["size_ethread"]),
        call_stack=memory(top, stopped.stack_base - top),
        top_of_stack=top,
        debugger_data=kernel.kdbg.raw,
        drivers=tuple(
            TriageDriver(one.path, one.base, one.entry_point, one.size, 0, one.check_sum, one.time_date_stamp)
            for one in kernel.modules
        ),
        unloaded=tuple(TriageUnloaded(one.name[:12], one.start, one.end) for one in kernel.unloaded_modules),
        blocks=blocks,
    )
    data = b"".join(encode_triage(header_of(kernel), contents, encode_secondary([BLOB], 0xF0004A61)))
    return SmallDumped(data, blocks, contents)


def contents_of(layout: TriageLayout, data: bytes) -> TriageContents:
    """All that was found in a file, to be written again."""

    def content(block: TriageBlock) -> bytes:
        return data[block.file_offset : block.file_offset + block.size] if block.size else b""

    return TriageContents(
        prcb=content(layout.prcb),
        process=content(layout.process),
        thread=content(layout.thread),
        call_stack=content(layout.call_stack),
        top_of_stack=layout.call_stack.address,
        debugger_data=content(layout.debugger_data),
        drivers=layout.drivers,
        unloaded=layout.unloaded,
        blocks=tuple((block.address, content(block)) for block in layout.blocks),
    )
