"""A machine out of a small dump: its pieces of virtual memory go back on the line, byte for byte.

What such a file keeps in lists of its own is laid into memory as a kernel has it, since a debugger on the line looks
there: the loaded and unloaded images (their entries and names lie at made-up addresses above MADE_UP), the bug check's
data and KUSER_SHARED_DATA from the header, where no piece has them. All else is the real machine's; what no piece
covers cannot be read, to the byte. Physical addresses mean nothing: reading by them is refused.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.arch import AMD64
from protocol.dumpfile.header import DumpHeader
from protocol.dumpfile.layout import ReadFile
from protocol.dumpfile.triage import TriageLayout, parse_triage
from protocol.layouts.kernel import KLDR_DATA_TABLE_ENTRY64, LIST_ENTRY64, UNLOADED_DRIVER64, UNLOADED_DRIVER_SLOTS
from protocol.structure import Structure

from .image import MemoryImage
from .profile import profile_for
from .shared_data import SharedData, encode_shared_data
from .space import SHARED_DATA_ADDRESS

__all__ = ["MADE_UP", "PieceImage", "TriageMemory", "frame_of"]

MADE_UP = 0xFFFFFE7F_00000000
"""Where the entries and names of images lie that the file only lists."""


class PieceImage(MemoryImage):
    """Memory of which only spans are there: frame n stands for the nth page of virtual memory that any span touches."""

    def __init__(self, runs: PageRuns, spans: dict[int, list[tuple[int, int]]]) -> None:
        super().__init__(runs)
        self._spans = spans

    def copy(self) -> PieceImage:
        """The same memory again."""
        image = PieceImage(self.runs, self._spans)
        image._pages = dict(self._pages)
        return image

    def read_some(self, address: int, size: int) -> bytes:
        """As many bytes as there are before the first that no piece covers."""
        there = 0
        while there < size:
            at = address + there
            offset = at & PAGE_SIZE - 1
            end = next((end for start, end in self._spans.get(at >> PAGE_SHIFT, ()) if start <= offset < end), 0)
            if not end:
                break
            there += min(end - offset, size - there)
        return super().read_some(address, there)


class TriageMemory:
    """A small dump's memory, to be read by virtual address as the builder of a served machine does."""

    def __init__(self, read: ReadFile, header: DumpHeader, size: int) -> None:
        self.layout: TriageLayout = parse_triage(read, header, size)
        self._header = header
        self._parts: list[tuple[int, bytes]] = []
        for block in self.layout.blocks:
            self._parts.append((block.address, read(block.file_offset, block.size)))
        for section in (self.layout.debugger_data, self.layout.call_stack):
            if section.address and section.size and self.read(section.address, section.size) is None:
                self._parts.append((section.address, read(section.file_offset, section.size)))
        self.prcb = read(self.layout.prcb.file_offset, self.layout.prcb.size)
        self._thread = read(self.layout.thread.file_offset, self.layout.thread.size)
        self._process = read(self.layout.process.file_offset, self.layout.process.size)
        self._next = MADE_UP

    @property
    def root(self) -> int:
        """Nothing is below it: only the parts tell what is where."""
        return self._header.directory_table_base & AMD64.paging.root_mask

    def read(self, address: int, size: int) -> bytes | None:
        """These bytes, out of one piece or several that touch; None where not all are there."""
        out = bytearray()
        while len(out) < size:
            at = address + len(out)
            part = next(((start, data) for start, data in self._parts if start <= at < start + len(data)), None)
            if part is None:
                return None
            start, data = part
            out += data[at - start : at - start + size - len(out)]
        return bytes(out)

    def pointer(self, address: int) -> int:
        """The 64-bit word at this address; 0 where it is not there."""
        return int.from_bytes(self.read(address, 8) or b"", "little")

    def lay_lists(self, block: Structure, processors: int) -> None:
        """Put what the file only lists where a debugger looks for it."""
        self._lay_objects(block)
        self._lay_modules(self._header.ps_loaded_module_list)
        self._lay_unloaded(block)
        # The list of debugger data, by which a debugger finds the KDBG: its links lead to the list's head.
        links = LIST_ENTRY64.encode(dict.fromkeys(("flink", "blink"), self._header.kd_debugger_data_block))
        self._put(block["flink"], links + bytes(8))
        data = (self._header.bug_check_code, *self._header.bug_check_parameters)
        self._put(block["ki_bugcheck_data"], b"".join(value.to_bytes(8, "little") for value in data))
        build = self._header.minor_version & 0xFFFF
        shared = SharedData(
            self._header.system_time or 0, self._header.system_up_time or 0, 0, build,
            self._header.product_type or 0, self._header.suite_mask or 0, processors, 0, 1,
        )  # fmt: skip
        self._put(SHARED_DATA_ADDRESS, encode_shared_data(shared, profile_for(build)))

    def _lay_objects(self, block: Structure) -> None:
        """The stopped thread and its process: where the sections before them point."""
        thread = _word(self.prcb, block["offset_prcb_current_thread"])
        self._put(thread, self._thread)
        self._put(_word(self._thread, block["offset_kthread_apc_process"]), self._process)

    def _put(self, address: int, data: bytes) -> None:
        """Where a piece has a part of these bytes, the piece is right."""
        if address and data and self.read(address, len(data)) is None:
            self._parts.append((address, data))

    def _place(self, data: bytes) -> int:
        address = self._next
        self._parts.append((address, data))
        self._next += len(data) + 15 & ~15
        return address

    def _lay_modules(self, head: int) -> None:
        if not head:
            return
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
            self._parts.append((ring[number], KLDR_DATA_TABLE_ENTRY64.encode(values)))
        links = {"flink": ring[1], "blink": ring[-2]}
        self._parts.insert(0, (head, LIST_ENTRY64.encode(links)))

    def _lay_unloaded(self, block: Structure) -> None:
        """The ring as a kernel fills it: the latest, which the file has first, is the last."""
        images = self.layout.unloaded[:UNLOADED_DRIVER_SLOTS]
        if not block["mm_unloaded_drivers"] or not images:
            return
        entries = bytearray()
        for image in reversed(images):
            name = image.name.encode("utf-16-le")
            entries += UNLOADED_DRIVER64.encode(
                {"name_length": len(name), "name_maximum": len(name), "name": self._place(name + b"\0\0"),
                 "start_address": image.start, "end_address": image.end}
            )  # fmt: skip
        ring = self._place(bytes(entries).ljust(UNLOADED_DRIVER_SLOTS * UNLOADED_DRIVER64.size, b"\0"))
        self._parts.insert(0, (block["mm_unloaded_drivers"], ring.to_bytes(8, "little")))
        self._parts.insert(0, (block["mm_last_unloaded_driver"], len(images).to_bytes(4, "little")))

    def machine(self) -> tuple[PieceImage, list[int]]:
        """The memory to serve, and the virtual page that each of its frames stands for, ascending."""
        pages = sorted({page for start, data in self._parts for page in _pages(start, len(data))})
        where = {page: number for number, page in enumerate(pages, 1)}
        spans: dict[int, list[tuple[int, int]]] = {}
        for start, data in self._parts:
            for page in _pages(start, len(data)):
                low, high = max(start, page << PAGE_SHIFT), min(start + len(data), page + 1 << PAGE_SHIFT)
                base = page << PAGE_SHIFT
                spans.setdefault(where[page], []).append((low - base, high - base))
        image = PieceImage(PageRuns([PageRun(1, len(pages))]), {pfn: sorted(parts) for pfn, parts in spans.items()})
        # The first part that has an address is the one that is read: so it is written last.
        for start, data in reversed(self._parts):
            for page in _pages(start, len(data)):
                low, high = max(start, page << PAGE_SHIFT), min(start + len(data), page + 1 << PAGE_SHIFT)
                image.write((where[page] << PAGE_SHIFT) + (low & PAGE_SIZE - 1), data[low - start : high - start])
        return image, pages


def _word(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "little")


def frame_of(pages: list[int], address: int) -> int | None:
    """The physical address that stands for a virtual one, by the list that `machine` gave."""
    page = address >> PAGE_SHIFT
    at = bisect.bisect_left(pages, page)
    if at == len(pages) or pages[at] != page:
        return None
    return (at + 1 << PAGE_SHIFT) + (address & PAGE_SIZE - 1)


def _pages(start: int, size: int) -> Iterator[int]:
    yield from range(start >> PAGE_SHIFT, (start + size - 1 >> PAGE_SHIFT) + 1)
