"""What a debugger finds in the made memory, read raw by the reference's offsets, against what is told beside it."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import pytest

from protocol.address import PageRun, PageRuns
from simulator.errors import SimulationError
from simulator.kernel import KernelOptions, SimulatedKernel, build_kernel

# Build to KDBG size (kd-protocol 6.2).
_SIZES = {3790: 0x318, 6000: 0x328, 6001: 0x330, 7601: 0x340, 9600: 0x360, 10586: 0x360, 14393: 0x368, 17763: 0x380,
          19041: 0x380, 22000: 0x390, 22621: 0x3A0}  # fmt: skip


@pytest.fixture(scope="module", params=_SIZES)
def kernel(request: pytest.FixtureRequest) -> SimulatedKernel:
    return build_kernel(KernelOptions(build=request.param, processors=3, memory_size=32 << 20, stopped_processor=1))


@pytest.fixture(scope="module")
def windows_10() -> SimulatedKernel:
    return build_kernel(KernelOptions(processors=3, memory_size=32 << 20, stopped_processor=1))


def _bytes(kernel: SimulatedKernel, address: int, size: int) -> bytes:
    data = kernel.read_virtual(address, size)
    assert data is not None, f"{address:#x} is not mapped"
    return data


def _number(kernel: SimulatedKernel, address: int, size: int = 8) -> int:
    return int.from_bytes(_bytes(kernel, address, size), "little")


def _block(kernel: SimulatedKernel, offset: int, size: int = 8) -> int:
    return _number(kernel, kernel.kdbg_address + offset, size)


def _ring(kernel: SimulatedKernel, head: int) -> Iterator[int]:
    """Entries of a circular list; every link back is held against the link that led there."""
    before, at = head, _number(kernel, head)
    for _ in range(1000):
        assert _number(kernel, at + 8) == before
        if at == head:
            return
        yield at
        before, at = at, _number(kernel, at)
    raise AssertionError("the list does not close")


def _name(kernel: SimulatedKernel, address: int) -> str:
    """A UNICODE_STRING."""
    length, maximum, buffer = struct.unpack("<HH4xQ", _bytes(kernel, address, 16))
    assert length % 2 == 0 and maximum >= length
    return _bytes(kernel, buffer, length).decode("utf-16-le")


def test_the_version_packet_leads_to_the_block(kernel: SimulatedKernel) -> None:
    (entry,) = _ring(kernel, kernel.version.debugger_data_list)
    assert entry == kernel.kdbg_address
    assert _bytes(kernel, entry + 0x10, 4) == b"KDBG"
    assert _block(kernel, 0x14, 4) == _SIZES[kernel.options.build]
    assert _block(kernel, 0x18) == kernel.version.kern_base == kernel.kernel_base
    assert _block(kernel, 0x48) == kernel.version.ps_loaded_module_list
    assert kernel.version.minor_version == kernel.options.build
    assert kernel.version.encode()[4:6] == b"\x06\x02"


def test_nothing_lies_behind_a_block_s_end(kernel: SimulatedKernel) -> None:
    size = _SIZES[kernel.options.build]
    assert _bytes(kernel, kernel.kdbg_address + size, 0x3B0 - size) == bytes(0x3B0 - size)


def test_the_bug_check_is_told_everywhere(kernel: SimulatedKernel) -> None:
    assert struct.unpack("<5Q", _bytes(kernel, _block(kernel, 0x88), 40)) == kernel.bug_check
    assert kernel.bug_check[0] == 0xD1
    stopped = kernel.processors[1].context_values
    assert stopped["rip"] == _block(kernel, 0x20), "it stands on BreakpointWithStatus"
    assert _bytes(kernel, stopped["rip"], 1) == b"\xcc"
    assert stopped["rcx"] == kernel.break_status == 4


def test_modules_by_the_list_in_memory(kernel: SimulatedKernel) -> None:
    entries = list(_ring(kernel, _block(kernel, 0x48)))
    assert len(entries) == len(kernel.modules) >= 9
    for entry, module in zip(entries, kernel.modules, strict=True):
        assert entry == module.entry_address
        assert _number(kernel, entry + 0x30) == module.base
        assert _number(kernel, entry + 0x38) == module.entry_point
        assert _number(kernel, entry + 0x40, 4) == module.size
        assert _name(kernel, entry + 0x48) == module.path
        assert _number(kernel, entry + 0x78, 4) == module.check_sum
        assert _number(kernel, entry + 0x9C, 4) == module.time_date_stamp
        assert _bytes(kernel, module.base, 2) == b"MZ"
    assert [module.name for module in kernel.modules[:2]] == ["nt", "hal"]
    spans = sorted((module.base, module.base + module.size) for module in kernel.modules)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)), "none overlaps another"
    long_name = _name(kernel, entries[0] + 0x58)
    # A module name as long as a path: NT 5.2 keeps what its loader called the kernel.
    assert long_name == (kernel.modules[0].path if kernel.options.build == 3790 else "ntoskrnl.exe")


def test_processes_by_the_list_in_memory(kernel: SimulatedKernel) -> None:
    layout = kernel.profile.eprocess
    links = layout.active_process_links
    found = [entry - links for entry in _ring(kernel, _block(kernel, 0x50))]
    assert found == [process.address for process in kernel.processes]
    root = _block(kernel, 0x2AE, 2)
    for process in kernel.processes:
        assert _number(kernel, process.address + root) == process.directory_table_base
        assert _number(kernel, process.address + layout.unique_process_id) == process.process_id
        name = _bytes(kernel, process.address + layout.image_file_name, 15)
        assert name.rstrip(b"\0").decode() == process.name
        assert _number(kernel, process.address + _block(kernel, 0x2AA, 2)) == process.peb
    assert kernel.processes[0].name == "System"
    assert kernel.processes[0].directory_table_base == kernel.directory_table_base


def test_a_user_process_has_memory_of_its_own_and_the_kernel_s(windows_10: SimulatedKernel) -> None:
    kernel = windows_10
    user = kernel.processes[-1]
    root = user.directory_table_base
    assert kernel.read_virtual(user.peb + 0x10, 8, root) == user.image_base.to_bytes(8, "little")
    assert kernel.read_virtual(user.teb + 0x60, 8, root) == user.peb.to_bytes(8, "little")
    assert kernel.read_virtual(user.image_base, 2, root) == b"MZ"
    assert kernel.read_virtual(user.peb, 8) is None, "System does not see it"
    assert kernel.read_virtual(kernel.kdbg_address, 0x380, root) == kernel.read_virtual(kernel.kdbg_address, 0x380)
    shared = 0xFFFFF78000000000
    assert kernel.read_virtual(0x7FFE0000, 4096, root) == kernel.read_virtual(shared, 4096)


def test_processors_by_their_blocks(kernel: SimulatedKernel) -> None:
    array = _block(kernel, 0x218)
    blocks = [_number(kernel, array + 8 * number) for number in range(4)]
    assert blocks == [processor.prcb for processor in kernel.processors] + [0]
    context, special = _block(kernel, 0x2BC, 2), _block(kernel, 0x2F2, 2)
    pointer = _block(kernel, 0x338, 2) if _block(kernel, 0x14, 4) > 0x338 else 0
    number_size = 1 if kernel.options.build < 6000 else 4
    for processor in kernel.processors:
        prcb = processor.prcb
        assert prcb == processor.pcr + 0x180 == _number(kernel, processor.pcr + 0x20)
        assert _number(kernel, processor.pcr + 0x18) == processor.pcr
        assert _number(kernel, prcb + _block(kernel, 0x2BE, 2), number_size) == processor.number
        assert _number(kernel, prcb + 8) == processor.thread
        state = _bytes(kernel, prcb + special, kernel.profile.prcb.special_registers_size)
        assert state == processor.special_registers(len(state))
        assert int.from_bytes(state[0x10:0x18], "little") in {p.directory_table_base for p in kernel.processes}
        assert processor.context_address == (_number(kernel, prcb + pointer) if pointer else prcb + context)
        # What memory holds there is of an earlier stop: only GetContext tells the truth.
        stale = _bytes(kernel, processor.context_address, 0x4D0)
        assert stale != processor.context()
        assert int.from_bytes(stale[0x30:0x34], "little") & 0x100000
    sizes = {3790: 0xD8, 9600: 0xE0, 19041: 0xF0}
    if kernel.options.build in sizes:
        assert kernel.profile.prcb.special_registers_size == sizes[kernel.options.build]


def test_the_thread_of_each_processor_knows_its_stack_and_process(kernel: SimulatedKernel) -> None:
    layout = kernel.profile.kthread
    for processor in kernel.processors:
        thread = processor.thread
        assert _number(kernel, thread + layout.stack_base) == processor.stack_base
        assert _number(kernel, thread + layout.stack_limit) == processor.stack_limit
        assert _number(kernel, thread + _block(kernel, 0x29E, 2)) == processor.stack_base
        assert _number(kernel, thread + _block(kernel, 0x2A0, 2)) == processor.process
        assert processor.stack_limit <= processor.context_values["rsp"] < processor.stack_base
        assert kernel.read_virtual(processor.stack_base, 8) is None, "a page that is not mapped guards it"
        assert kernel.read_virtual(processor.stack_limit - 8, 8) is None


def test_descriptor_tables(windows_10: SimulatedKernel) -> None:
    kernel = windows_10
    for processor in kernel.processors:
        special = processor.special_values
        gdt, idt = special["gdtr_base"], special["idtr_base"]
        code = _number(kernel, gdt + 0x10)
        assert code >> 53 & 1 and code >> 47 & 1, "a 64-bit code segment that is present"
        low, high = struct.unpack("<QQ", _bytes(kernel, gdt + special["tr"], 16))
        tss = low >> 16 & 0xFFFFFF | low >> 56 << 24 | high << 32
        assert tss == processor.tss and low >> 40 & 15 == 0xB
        for vector, name in ((3, "KiBreakpointTrap"), (14, "KiPageFault"), (0x55, "KiUnexpectedInterrupt")):
            first, selector, _, kind, middle, top = struct.unpack("<HHBBHI4x", _bytes(kernel, idt + 16 * vector, 16))
            assert first | middle << 16 | top << 32 == kernel.symbols[name]
            assert (selector, kind & 0x9F) == (0x10, 0x8E)
        assert special["idtr_limit"] == 256 * 16 - 1


def test_memory_s_runs(kernel: SimulatedKernel) -> None:
    descriptor = _number(kernel, _block(kernel, 0x270))
    count, pages = struct.unpack("<I4xQ", _bytes(kernel, descriptor, 16))
    runs = list(struct.iter_unpack("<QQ", _bytes(kernel, descriptor + 16, 16 * count)))
    assert runs == [(run.base_page, run.page_count) for run in kernel.image.runs]
    assert pages == kernel.image.runs.page_count == sum(size for _, size in runs)


def test_unloaded_drivers(kernel: SimulatedKernel) -> None:
    ring = _number(kernel, _block(kernel, 0x220))
    assert _number(kernel, _block(kernel, 0x228), 4) == len(kernel.unloaded_modules) == 3
    for number, module in enumerate(kernel.unloaded_modules):
        entry = ring + 0x28 * number
        assert _name(kernel, entry) == module.name
        assert struct.unpack("<QQQ", _bytes(kernel, entry + 0x10, 24)) == (module.start, module.end, module.time)
    assert _bytes(kernel, ring + 0x28 * 3, 0x28) == bytes(0x28)


def test_the_version_s_text(kernel: SimulatedKernel) -> None:
    text = _bytes(kernel, _block(kernel, 0x208), 0x100).rstrip(b"\0").decode()
    assert text == kernel.build_lab and text.startswith(f"{kernel.options.build}.")


def test_shared_data(kernel: SimulatedKernel) -> None:
    """Offsets of kd-protocol 7.5."""
    page = _bytes(kernel, 0xFFFFF78000000000, 0x400)

    def triple(offset: int) -> int:
        low, high, again = struct.unpack_from("<III", page, offset)
        assert high == again
        return low | high << 32

    assert triple(0x14) == kernel.system_time and triple(0x08) == kernel.options.uptime
    assert page[0x30:0x44].decode("utf-16-le") == "C:\\Windows"
    if kernel.options.build >= 10240:
        assert struct.unpack_from("<I", page, 0x260)[0] & 0xFFFFFFF == kernel.options.build
    assert struct.unpack_from("<I", page, 0x264)[0] == 1
    version = {3790: (5, 2), 6000: (6, 1), 9600: (6, 3), 10586: (10, 0), 22621: (10, 0)}
    assert (
        struct.unpack_from("<II", page, 0x26C)
        == version[max(build for build in version if build <= kernel.options.build)]
    )
    assert page[0x2D4] == 1
    assert struct.unpack_from("<I", page, 0x2E8)[0] == kernel.image.runs.page_count
    assert struct.unpack_from("<I", page, 0x3C0)[0] == 3


def test_the_self_map_leads_to_every_page_table_entry(windows_10: SimulatedKernel) -> None:
    kernel = windows_10
    base = _block(kernel, 0x360)
    assert base == kernel.pte_base
    for address in (kernel.kdbg_address, kernel.kernel_base, kernel.processors[2].stack_limit):
        entry = _number(kernel, base + ((address & (1 << 48) - 1) >> 12) * 8)
        assert entry & 1 and entry & 0xFFFFFFFFF000 == (kernel.tables.translate(address) or 0) & ~0xFFF


def test_an_encoded_block_is_decoded_by_hand() -> None:
    """kd-protocol 6.5, step by step."""
    kernel = build_kernel(KernelOptions(build=22621, encoded_kdbg=True, memory_size=32 << 20))
    never = _number(kernel, kernel.symbols["KiWaitNever"])
    always = _number(kernel, kernel.symbols["KiWaitAlways"])
    flag = kernel.symbols["KdpDataBlockEncoded"]
    assert _number(kernel, flag, 1) == 1
    assert _bytes(kernel, kernel.kdbg_address + 0x10, 4) != b"KDBG"
    plain = b""
    for (value,) in struct.iter_unpack("<Q", _bytes(kernel, kernel.kdbg_address, 0x3A0)):
        x = value ^ never
        turn = (never & 0xFF) % 64
        x = (x << turn | x >> 64 - turn) & (1 << 64) - 1
        x ^= flag
        x = int.from_bytes(x.to_bytes(8, "little"), "big")
        plain += (x ^ always).to_bytes(8, "little")
    assert plain[0x10:0x18] == b"KDBG" + (0x3A0).to_bytes(4, "little")
    assert plain == kernel.kdbg.raw


def test_another_owner_s_block_may_stand_in_front() -> None:
    kernel = build_kernel(KernelOptions(foreign_block=True, memory_size=32 << 20))
    first, second = _ring(kernel, kernel.version.debugger_data_list)
    assert _bytes(kernel, first + 0x10, 4) == b"NDIS" and second == kernel.kdbg_address


def test_device_memory_is_mapped_and_no_ram() -> None:
    kernel = build_kernel(KernelOptions(memory_size=64 << 20))
    device = kernel.image.device
    assert 0xFEE00 in device and 0xA0 in device
    hit = [
        leaf for leaf in kernel.tables.mapped() if PageRuns([PageRun(leaf.physical >> 12, leaf.size >> 12)]) & device
    ]
    assert len(hit) >= 3, "page walks come upon it"
    assert not device & kernel.image.runs
    assert kernel.image.device_accesses == [], "but making it touched none"


def test_unreadable_pages_are_content_only() -> None:
    kernel = build_kernel(KernelOptions(unreadable_pages=7, memory_size=32 << 20))
    assert len(kernel.image.unreadable) == 7
    assert all(pfn in kernel.content and kernel.image.read_page(pfn) is None for pfn in kernel.image.unreadable)


@pytest.mark.parametrize("processors", [1, 4, 64, 256])
def test_any_number_of_processors(processors: int) -> None:
    kernel = build_kernel(KernelOptions(processors=processors, memory_size=64 << 20))
    array = _block(kernel, 0x218)
    blocks = struct.unpack(f"<{processors + 1}Q", _bytes(kernel, array, 8 * (processors + 1)))
    assert blocks[-1] == 0 and len(set(blocks)) == processors + 1
    assert {_number(kernel, prcb + 0x24, 4) for prcb in blocks[:-1]} == set(range(processors))
    stacks = {processor.stack_limit for processor in kernel.processors}
    assert len(stacks) == len({processor.context_address for processor in kernel.processors}) == processors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (KernelOptions(processors=0), "0 processors"),
        (KernelOptions(processors=257), "257 processors"),
        (KernelOptions(processors=2, stopped_processor=2), "no processor 2"),
        (KernelOptions(memory_size=1 << 20), "at least 16 MiB"),
        (KernelOptions(memory_size=16 << 20, runs=3000), "cannot be cut into 3000 runs"),
        (KernelOptions(memory_size=64 << 20, gigabyte_page=True), "1 GiB page"),
        (KernelOptions(memory_size=32 << 20, unreadable_pages=100_000), "too few"),
        (KernelOptions(memory_size=16 << 20, processors=256), "too little"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(options: KernelOptions, message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        build_kernel(options)


def test_one_seed_is_one_machine() -> None:
    options = KernelOptions(seed=77, memory_size=32 << 20)
    first, again = build_kernel(options), build_kernel(options)
    assert first.image.digest() == again.image.digest()
    assert (first.symbols, first.modules, first.processors) == (again.symbols, again.modules, again.processors)
    other = build_kernel(KernelOptions(seed=78, memory_size=32 << 20))
    assert other.image.digest() != first.image.digest() and other.kernel_base != first.kernel_base


@pytest.mark.parametrize("runs", [1, 2, 42, 43, 200])
def test_so_many_runs(runs: int) -> None:
    kernel = build_kernel(KernelOptions(runs=runs, memory_size=64 << 20))
    assert len(kernel.image.runs) == runs


def test_runs_as_they_are_given() -> None:
    runs = PageRuns([PageRun(0x10, 0x1000), PageRun(0x4000, 0x800), PageRun(0x100000, 0x900)])
    kernel = build_kernel(KernelOptions(runs=runs))
    assert kernel.image.runs == runs
    assert all(pfn in runs for pfn in kernel.image.content_pages())
