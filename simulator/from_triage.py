"""A machine out of a small dump: its pieces of virtual memory go back on the line, byte for byte.

What such a file keeps in sections and lists of its own is put where a debugger on the line looks for it, and of all
that these bytes are made up:

* where no piece has the loaded images' entries: the entries and names, at addresses from MADE_UP on, and the links at
  PsLoadedModuleList that lead to them; in the entries all but what the list of drivers says is zero, and the load
  count 1;
* likewise the ring of unloaded images, the pointer at MmUnloadedDrivers and the number at MmLastUnloadedDriver;
* where no piece has them: the links around the KDBG, KiBugcheckData, each processor's GDT (that of any x64 Windows),
  and KUSER_SHARED_DATA, in which times, product type, build and number of processors are the header's and the fixed
  fields those of any such Windows;
* zeros behind each of these where no piece follows, since WinDbg on a line reads no less than 128 bytes at once.

All else is the real machine's; what no piece covers cannot be read, to the byte. Physical addresses mean nothing:
reading by them is refused.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.dumpfile.header import DumpHeader
from protocol.dumpfile.layout import ReadFile
from protocol.dumpfile.triage import TriageBlock, TriageLayout, parse_triage
from protocol.layouts.kernel import (
    KLDR_DATA_TABLE_ENTRY64,
    LARGEST_NAME,
    LIST_ENTRY64,
    UNLOADED_DRIVER64,
    UNLOADED_DRIVER_SLOTS,
)
from protocol.pieces import Stretch, without_overlaps
from protocol.structure import Structure

from .image import MemoryImage, PageBacking
from .processors import SEGMENT_DESCRIPTORS
from .profile import profile_for
from .shared_data import SharedData, encode_shared_data
from .space import SHARED_DATA_ADDRESS

__all__ = ["MADE_UP", "PieceImage", "TriageMemory"]

MADE_UP = 0xFFFFFE7F_00000000
"""Where the entries and names of images lie that the file only lists."""

_MOST_MODULES = 4096
_READ_AT_ONCE = 0x80
_SYSTEM_ROOT, _SYSTEM_ROOT_END = 0x30, 0x238
"""KUSER_SHARED_DATA.NtSystemRoot: no header says it."""


class PieceImage(MemoryImage):
    """Memory of which only pieces are there: frame n + 1 stands for the nth page of virtual memory that any touches."""

    __slots__ = ("_spans", "pages")

    def __init__(self, pages: list[int], spans: dict[int, list[tuple[int, int]]], backing: PageBacking) -> None:
        """`pages` are virtual page numbers, ascending; `spans` the parts of each frame that are there."""
        super().__init__(backing.pages, backings=(backing,))
        self.pages = pages
        self._spans = spans

    def copy(self) -> PieceImage:
        """The same memory again."""
        image = PieceImage(self.pages, self._spans, self._backings[0])
        image._pages = dict(self._pages)
        return image

    def frame_of(self, address: int) -> int | None:
        """The physical address that stands for a virtual one."""
        at = bisect.bisect_left(self.pages, address >> PAGE_SHIFT)
        if at == len(self.pages) or self.pages[at] != address >> PAGE_SHIFT:
            return None
        return (at + 1 << PAGE_SHIFT) + (address & PAGE_SIZE - 1)

    def read_some(self, address: int, size: int) -> bytes:
        """As many bytes as there are before the first that no piece covers."""
        return super().read_some(address, self._there(address, size))

    def write(self, address: int, data: bytes | bytearray | memoryview) -> bool:
        """Write where pieces are; False, and nothing is written, where one byte is in none."""
        return self._there(address, len(data)) == len(data) and super().write(address, data)

    def _there(self, address: int, size: int) -> int:
        there = 0
        while there < size:
            offset = address + there & PAGE_SIZE - 1
            spans = self._spans.get(address + there >> PAGE_SHIFT, ())
            end = next((end for start, end in spans if start <= offset < end), offset)
            there += min(end - offset, size - there)
            if end < PAGE_SIZE:
                break
        return there


@dataclass(frozen=True, slots=True)
class _Laid:
    """Bytes that were put somewhere."""

    address: int
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)


_Part = TriageBlock | _Laid


class TriageMemory:
    """A small dump's memory, to be read by virtual address as the builder of a served machine does.

    Of two parts that hold a byte the one that was laid first is right, but for what is made up to replace it.
    """

    def __init__(self, read: ReadFile, header: DumpHeader, size: int) -> None:
        """Raises DumpFormatError where there is no TRIAGE_DUMP."""
        self.layout: TriageLayout = parse_triage(read, header, size)
        self._header = header
        self._file = read
        self._parts: list[_Part] = list(self.layout.blocks)
        self._made_up: list[_Part] = []
        self._stretches: list[Stretch] = []
        for section in (self.layout.debugger_data, self.layout.call_stack):
            self._put(section.address, self._bytes(section))
        self._prcb = self._bytes(self.layout.prcb)
        self._next = MADE_UP

    def _bytes(self, block: TriageBlock) -> bytes:
        return self._file(block.file_offset, block.size) if block.size else b""

    # ---- reading -------------------------------------------------------------------------------------------

    def _laid(self) -> list[Stretch]:
        if not self._stretches:
            parts = self._made_up + self._parts
            self._stretches = list(without_overlaps([(part.address, part.size) for part in parts]))
        return self._stretches

    def _content(self, stretch: Stretch, start: int, end: int) -> bytes:
        number = stretch.piece - len(self._made_up)
        part = self._made_up[stretch.piece] if number < 0 else self._parts[number]
        low, high = max(start, stretch.start) - part.address, min(end, stretch.end) - part.address
        return part.data[low:high] if isinstance(part, _Laid) else self._file(part.file_offset + low, high - low)

    def read(self, address: int, size: int) -> bytes | None:
        """These bytes, out of one piece or several that touch; None where not all are there."""
        stretches = self._laid()
        out = bytearray()
        index = bisect.bisect_right(stretches, address, key=lambda stretch: stretch.start) - 1
        while len(out) < size:
            at = address + len(out)
            if not 0 <= index < len(stretches) or not stretches[index].start <= at < stretches[index].end:
                return None
            out += self._content(stretches[index], at, address + size)
            index += 1
        return bytes(out)

    def pointer(self, address: int) -> int:
        """The 64-bit word at this address; 0 where it is not there."""
        return int.from_bytes(self.read(address, 8) or b"", "little")

    # ---- laying --------------------------------------------------------------------------------------------

    def _put(self, address: int, data: bytes) -> None:
        """Where a piece has a part of these bytes, the piece is right."""
        if address and data:
            self._parts.append(_Laid(address, data))
            self._stretches = []

    def _make_up(self, address: int, data: bytes) -> None:
        """These bytes, whatever the pieces say."""
        self._made_up.append(_Laid(address, data))
        self._stretches = []

    def _place(self, data: bytes) -> int:
        address = self._next
        self._make_up(address, data)
        self._next += len(data) + 15 & ~15
        return address

    def lay_sections(self, block: Structure) -> int:
        """Put KPRCB, thread and process where they were. Gives the number of the processor that stopped."""
        number = _number(self._prcb, block["offset_prcb_number"], 4)
        if number >= self._header.number_processors:
            number = 0
        self._put(self.pointer(block["ki_processor_block"] + 8 * number), self._prcb[: block["size_prcb"] or None])
        thread = self._bytes(self.layout.thread)[: block["size_ethread"] or None]
        process = self._bytes(self.layout.process)[: block["size_eprocess"] or None]
        self._put(_number(self._prcb, block["offset_prcb_current_thread"], 8), thread)
        self._put(_number(thread, block["offset_kthread_apc_process"], 8), process)
        return number

    def lay_lists(self, block: Structure, processors: int, descriptor_tables: list[tuple[int, int]]) -> None:
        """Put what the file only lists where a debugger looks for it; `descriptor_tables`: base and limit of GDTs."""
        real = len(self._parts)
        head = self._header.ps_loaded_module_list or block["ps_loaded_module_list"]
        if head and self.layout.drivers and not self._has_modules(head):
            self._lay_modules(head)
        if block["mm_unloaded_drivers"] and self.layout.unloaded and not self._has_unloaded(block):
            self._lay_unloaded(block)
        # The list of debugger data, by which a debugger finds the KDBG: its links lead to the list's head.
        links = LIST_ENTRY64.encode(dict.fromkeys(("flink", "blink"), self._header.kd_debugger_data_block))
        self._put(block["flink"], links + bytes(8))
        data = (self._header.bug_check_code, *self._header.bug_check_parameters)
        self._put(block["ki_bugcheck_data"], b"".join(value.to_bytes(8, "little") for value in data))
        if self._header.system_time is not None:
            self._put(SHARED_DATA_ADDRESS, self._shared_data(self._header.system_time, processors))
        table = bytearray(max(SEGMENT_DESCRIPTORS) + 8)
        for selector, descriptor in SEGMENT_DESCRIPTORS.items():
            table[selector : selector + 8] = descriptor.to_bytes(8, "little")
        for base, limit in descriptor_tables:
            self._put(base, bytes(table).ljust(min(limit + 1, PAGE_SIZE), b"\0"))
        for part in self._made_up + self._parts[real:]:
            self._put(part.address + part.size, bytes(_READ_AT_ONCE))

    def _shared_data(self, system_time: int, processors: int) -> bytes:
        build = self._header.minor_version & 0xFFFF
        shared = SharedData(
            system_time, self._header.system_up_time or 0, 0, build, self._header.product_type or 0,
            self._header.suite_mask or 0, processors, 0, 1,
        )  # fmt: skip
        page = bytearray(encode_shared_data(shared, profile_for(build)))
        page[_SYSTEM_ROOT:_SYSTEM_ROOT_END] = bytes(_SYSTEM_ROOT_END - _SYSTEM_ROOT)
        return bytes(page)

    def _has_modules(self, head: int) -> bool:
        """Whether the list can be walked in the pieces, from its head to its head, with every name."""
        at, seen = self.pointer(head), 0
        while at != head:
            raw = self.read(at, KLDR_DATA_TABLE_ENTRY64.size)
            seen += 1
            if raw is None or seen > _MOST_MODULES:
                return False
            entry = KLDR_DATA_TABLE_ENTRY64.decode(raw)
            for name in ("full_dll_name", "base_dll_name"):
                if self.read(entry[name], min(entry[f"{name}_length"], LARGEST_NAME)) is None:
                    return False
            at = entry["flink"]
        return seen > 0

    def _has_unloaded(self, block: Structure) -> bool:
        ring = self.pointer(block["mm_unloaded_drivers"])
        raw = self.read(ring, UNLOADED_DRIVER_SLOTS * UNLOADED_DRIVER64.size) if ring else None
        return raw is not None and self.read(block["mm_last_unloaded_driver"], 4) is not None

    def _lay_modules(self, head: int) -> None:
        size = KLDR_DATA_TABLE_ENTRY64.size
        places = [self._next + number * size for number in range(len(self.layout.drivers))]
        self._next += size * len(places)
        ring = [head, *places, head]
        for number, driver in enumerate(self.layout.drivers, 1):
            full = driver.path.encode("utf-16-le")
            base = driver.path.rpartition("\\")[2].encode("utf-16-le")
            values = {
                "flink": ring[number + 1], "blink": ring[number - 1], "dll_base": driver.base,
                "entry_point": driver.entry_point, "size_of_image": driver.size,
                "full_dll_name_length": len(full), "full_dll_name_maximum": len(full) + 2,
                "full_dll_name": self._place(full + b"\0\0"),
                "base_dll_name_length": len(base), "base_dll_name_maximum": len(base) + 2,
                "base_dll_name": self._place(base + b"\0\0"),
                "flags": driver.flags, "load_count": 1, "check_sum": driver.check_sum,
                "size_of_image_not_rounded": driver.size, "time_date_stamp": driver.time_date_stamp,
            }  # fmt: skip
            self._make_up(ring[number], KLDR_DATA_TABLE_ENTRY64.encode(values))
        self._make_up(head, LIST_ENTRY64.encode({"flink": ring[1], "blink": ring[-2]}))

    def _lay_unloaded(self, block: Structure) -> None:
        """The ring as a kernel fills it: the latest, which the file has first, is the last."""
        images = self.layout.unloaded[:UNLOADED_DRIVER_SLOTS]
        entries = bytearray()
        for image in reversed(images):
            name = image.name.encode("utf-16-le", "replace")
            entries += UNLOADED_DRIVER64.encode(
                {"name_length": len(name), "name_maximum": len(name), "name": self._place(name + b"\0\0"),
                 "start_address": image.start, "end_address": image.end}
            )  # fmt: skip
        ring = self._place(bytes(entries).ljust(UNLOADED_DRIVER_SLOTS * UNLOADED_DRIVER64.size, b"\0"))
        self._make_up(block["mm_unloaded_drivers"], ring.to_bytes(8, "little"))
        self._make_up(block["mm_last_unloaded_driver"], len(images).to_bytes(4, "little"))

    # ---- serving -------------------------------------------------------------------------------------------

    def image(self) -> PieceImage:
        """The memory to serve."""
        on_page: dict[int, list[Stretch]] = {}
        for stretch in self._laid():
            for page in range(stretch.start >> PAGE_SHIFT, (stretch.end - 1 >> PAGE_SHIFT) + 1):
                on_page.setdefault(page, []).append(stretch)
        pages = sorted(on_page)

        def content(frame: int) -> bytes:
            start = pages[frame - 1] << PAGE_SHIFT
            data = bytearray(PAGE_SIZE)
            for stretch in on_page[pages[frame - 1]]:
                part = self._content(stretch, start, start + PAGE_SIZE)
                at = max(stretch.start - start, 0)
                data[at : at + len(part)] = part
            return bytes(data)

        spans = {frame: list(_spans(page, on_page[page])) for frame, page in enumerate(pages, 1)}
        return PieceImage(pages, spans, PageBacking(PageRuns([PageRun(1, len(pages))]), content))


def _number(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little") if offset else 0


def _spans(page: int, stretches: list[Stretch]) -> Iterator[tuple[int, int]]:
    """What stretches cover of a page; those that touch are one span."""
    base = page << PAGE_SHIFT
    low = high = -1
    for stretch in stretches:
        start, end = max(stretch.start - base, 0), min(stretch.end - base, PAGE_SIZE)
        if start != high:
            if high > low:
                yield low, high
            low = start
        high = end
    yield low, high
