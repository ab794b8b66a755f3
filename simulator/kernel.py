"""A believable x64 NT kernel's memory, generated: one seed gives one machine, down to the last byte.

What a debugger can find is told beside it as plain values, so that a test need not believe any reader.
"""

from __future__ import annotations

import hashlib
import random
import struct
from dataclasses import dataclass
from typing import Literal

from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns
from protocol.arch import AMD64
from protocol.layouts.kdbg import KdbgKey
from protocol.layouts.kernel import (
    KLDR_DATA_TABLE_ENTRY64,
    UNLOADED_DRIVER64,
    UNLOADED_DRIVER_SLOTS,
    encode_physical_memory_descriptor,
)
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure

from .debugger_data import build_debugger_data, kernel_variables
from .errors import SimulationError
from .frames import FrameAllocator, believable_runs
from .image import MemoryImage, PageBacking
from .modules import driver_specs, kernel_spec
from .paging import GIB, MIB2, PageTables, PteFlag
from .pe import ImagePlan, plan_image
from .processes import SimulatedProcess, SimulatedThread, build_process, build_thread
from .processors import PCR_PRCB, SimulatedProcessor, build_descriptor_tables, lay_processor, special_values
from .profile import KernelProfile, kdbg_size_for, profile_for
from .shared_data import SharedData, encode_shared_data
from .situations import Standing, make_chain
from .space import SHARED_DATA_ADDRESS, SYSTEM_RANGE_START, KernelSpace, plan_addresses
from .stacks import LoadedImages

__all__ = [
    "BugCheck",
    "KernelOptions",
    "SimulatedKernel",
    "SimulatedModule",
    "SimulatedProcess",
    "SimulatedProcessor",
    "StopKind",
    "UnloadedModule",
    "build_kernel",
]

StopKind = Literal["bugcheck-first", "bugcheck-final", "breakpoint", "running"]
"""Where the machine stands: a bug check's first or last break (status 3, 4), an int3 in a driver, or a break-in."""

_SYSTEM_ROOT_PAGE = 0x1AA
"""System's PML4: where boot loaders put it, and the first place where memory forensics looks."""

_LAPIC, _IOAPIC = 0xFEE00, 0xFEC00
_FRAME_BUFFER = PageRun(0xC0000, 0x800)
_VGA = PageRun(0xA0, 0x20)


@dataclass(frozen=True, slots=True)
class BugCheck:
    """A bug check. Without parameters they are those that fit the stack that was made (D1 and A)."""

    code: int
    parameters: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class KernelOptions:
    """What kind of machine. Everything that is not told here is drawn from the seed."""

    seed: int = 1
    processors: int = 4
    memory_size: int = 256 << 20
    """Bytes of RAM, 16 MiB to 64 GiB and beyond."""
    runs: int | PageRuns | None = None
    """So many runs, or these; None: those of a PC of this size."""
    build: int = 19041
    kdbg_size: int | None = None
    """None: as long as this build's."""
    encoded_kdbg: bool = False
    foreign_block: bool = False
    """Another owner's block stands before the kernel's in the list of debugger data."""
    content_size: int | None = None
    """Bytes of RAM filled with data that is not zero; None: a sixteenth of memory, at most 4 MiB."""
    unreadable_pages: int = 0
    """So many pages of the runs cannot be read by anybody."""
    gigabyte_page: bool | None = None
    """A 1 GiB page maps RAM; None: on machines with 4 GiB and more."""
    stop: StopKind = "bugcheck-final"
    bug_check: BugCheck = BugCheck(0xD1)
    stopped_processor: int = 0
    debugger_attached: bool = False
    """A debugger has answered before (bit 1 of KdDebuggerEnabled)."""
    system_time: int = 133_546_012_134_567_890
    """FILETIME, UTC: 2024-03-11 05:20:13."""
    uptime: int = 3 * 3600 * 10_000_000 + 4_230_000_000
    """100 ns units since boot."""


@dataclass(frozen=True, slots=True)
class SimulatedModule:
    """A loaded image, as the module list must tell it."""

    name: str
    file_name: str
    path: str
    base: int
    size: int
    entry_point: int
    time_date_stamp: int
    check_sum: int
    entry_address: int


@dataclass(frozen=True, slots=True)
class UnloadedModule:
    """An image that was unloaded. `time` is a FILETIME."""

    name: str
    start: int
    end: int
    time: int


@dataclass(frozen=True, slots=True)
class SimulatedKernel:
    """A machine's memory, and the truth about it."""

    options: KernelOptions
    profile: KernelProfile
    image: MemoryImage
    tables: PageTables
    directory_table_base: int
    pte_base: int
    kernel_base: int
    version: GetVersion64
    kdbg_address: int
    debugger_data_list: int
    kdbg: Structure
    """The block in plain, whatever memory holds."""
    kdbg_key: KdbgKey | None
    modules: tuple[SimulatedModule, ...]
    unloaded_modules: tuple[UnloadedModule, ...]
    processes: tuple[SimulatedProcess, ...]
    processors: tuple[SimulatedProcessor, ...]
    stopped_processor: int
    break_status: int | None
    """First argument of DbgBreakPointWithStatus; None where the machine stands on another int3."""
    bug_check: tuple[int, int, int, int, int]
    """Code and parameters; all 0 where there was none."""
    symbols: dict[str, int]
    """The kernel's names plain, the drivers' as "mydrv!ReadBuffer"."""
    build_lab: str
    shared_data: SharedData
    system_time: int
    content: PageRuns
    """Frames filled with data."""

    def read_virtual(self, address: int, size: int, root: int | None = None) -> bytes | None:
        """Memory by virtual address, as System sees it or through another root; None where not all is there."""
        parts: list[bytes] = []
        while size > 0:
            length = min(size, PAGE_SIZE - (address & PAGE_SIZE - 1))
            physical = self.tables.translate(address, root)
            data = None if physical is None else self.image.read(physical, length)
            if data is None:
                return None
            parts.append(data)
            address, size = address + length, size - length
        return b"".join(parts)


def build_kernel(options: KernelOptions | None = None) -> SimulatedKernel:
    """Make the machine. Raises SimulationError when the options do not fit together."""
    return _Builder(options or KernelOptions()).build()


class _Builder:
    """One machine while it is made; each method lays one part into memory."""

    def __init__(self, options: KernelOptions) -> None:
        if not 1 <= options.processors <= 256:
            raise SimulationError(f"{options.processors} processors: between 1 and 256 are possible")
        if not 0 <= options.stopped_processor < options.processors:
            raise SimulationError(f"there is no processor {options.stopped_processor} to stop on")
        if options.memory_size < 16 << 20:
            raise SimulationError(f"{options.memory_size:#x} bytes of memory: at least 16 MiB are needed")
        self.options = options
        self.profile = profile_for(options.build)
        self.rng = random.Random(f"kernel {options.seed}")
        self.kdbg_size = options.kdbg_size or kdbg_size_for(options.build)
        runs = (
            options.runs
            if isinstance(options.runs, PageRuns)
            else believable_runs(options.memory_size, options.runs, options.seed)
        )
        device = PageRuns([_VGA, PageRun(_LAPIC, 1), PageRun(_IOAPIC, 1), _FRAME_BUFFER]) - runs
        self.image = MemoryImage(runs, device=device)
        self.frames = FrameAllocator(runs, self.rng)
        root = _SYSTEM_ROOT_PAGE if self.frames.take(_SYSTEM_ROOT_PAGE) else self.frames.allocate()
        self.tables = PageTables(self.image, self.frames.allocate, root << PAGE_SHIFT)
        addresses = plan_addresses(self.rng, self.profile.randomized, self.profile.unrandomized_kernel)
        self.pte_base = self.tables.map_self(addresses.self_map_slot)
        self.space = KernelSpace(self.image, self.frames, self.tables, addresses, self.rng)
        self.processes: list[SimulatedProcess] = []
        self.symbols: dict[str, int] = {}

    def build(self) -> SimulatedKernel:
        """All parts, in the order in which they need each other."""
        options, profile, space = self.options, self.profile, self.space
        images = self._load_images()
        self.symbols = {**images.symbols(), "ImageBase": space.addresses.kernel}
        modules = self._lay_module_list(images)
        unloaded = self._lay_unloaded_modules()
        shared, shared_physical = self._lay_shared_data()
        system, idle, user = self._lay_processes(shared_physical)
        processors, stopped = self._lay_processors(images, system, idle, user)
        bug_check = stopped.bug_check or (0, 0, 0, 0, 0)
        space.write_qwords(self.symbols["KiBugCheckData"], *bug_check)
        version = self._version(modules[0].base)
        key = self._lay_variables(version, bug_check, stopped.break_status)
        head, block = self.symbols["KdpDebuggerDataListHead"], self.symbols["KdDebuggerDataBlock"]
        links = self._link_debugger_data(head, block)
        data = build_debugger_data(
            profile,
            self.symbols,
            size=self.kdbg_size,
            links=links,
            saved_context=stopped.saved_context,
            pte_base=self.pte_base,
            key=key,
        )
        space.write(block, data.in_memory)
        self._map_devices()
        content = self._fill()
        self._lay_odd_entries(content)
        for process in self.processes:
            if process.tables is not self.tables:
                self.tables.share_kernel_half(process.tables)
        self.image.unreadable |= self._choose_unreadable(content)
        return SimulatedKernel(
            options=options,
            profile=profile,
            image=self.image,
            tables=self.tables,
            directory_table_base=self.tables.root,
            pte_base=self.pte_base,
            kernel_base=modules[0].base,
            version=version,
            kdbg_address=block,
            debugger_data_list=head,
            kdbg=data.plain,
            kdbg_key=key,
            modules=tuple(modules),
            unloaded_modules=tuple(unloaded),
            processes=tuple(self.processes),
            processors=tuple(processors),
            stopped_processor=options.stopped_processor,
            break_status=stopped.break_status,
            bug_check=bug_check,
            symbols=self.symbols,
            build_lab=self._build_lab(),
            shared_data=shared,
            system_time=shared.system_time,
            content=content,
        )

    def _load_images(self) -> LoadedImages:
        """Lay out, link and map the kernel and its drivers."""
        profile, space = self.profile, self.space
        large = space.large_pages and space.addresses.kernel % MIB2 == 0
        variables = kernel_variables(profile, profile.prcb.size + PCR_PRCB)
        specs = [
            kernel_spec(profile, variables, large=large),
            *driver_specs(profile, small=not space.large_pages),
        ]
        images: dict[str, tuple[ImagePlan, int]] = {}
        next_base = space.addresses.drivers
        for spec in specs:
            plan = plan_image(spec, self.rng)
            if spec.name == "nt":
                images["nt"] = plan, space.addresses.kernel
                continue
            images[spec.name] = plan, next_base
            next_base += plan.size + self.rng.randrange(1, 32) * PAGE_SIZE
        loaded = LoadedImages(images)
        addresses = loaded.addresses()
        for name, (plan, base) in images.items():
            self._map_image(plan, base, large=large and name == "nt")
            content = plan.link(base, addresses)
            for at in range(0, plan.size, PAGE_SIZE):
                page = content[at : at + PAGE_SIZE]
                if page.strip(b"\0") and space.tables.translate(base + at) is not None:
                    space.write(base + at, page)
        self._plans = images
        return loaded

    def _map_image(self, plan: ImagePlan, base: int, *, large: bool) -> None:
        """A kernel that was loaded by large pages is mapped as a whole; other images by section, without INIT."""
        space = self.space
        if large:
            for at in range(0, plan.size, MIB2):
                block = self.frames.allocate_block(512, 512)
                if block is None:
                    raise SimulationError("there is no room for the kernel's large pages")
                space.tables.map(base + at, block << PAGE_SHIFT, MIB2, PteFlag.WRITE | PteFlag.GLOBAL)
            return
        space.map_fresh(base, PteFlag.NO_EXECUTE)
        for section in plan.sections:
            if section.discarded:
                continue
            flags = PteFlag(0) if section.executable else PteFlag.NO_EXECUTE
            if section.writable:
                flags |= PteFlag.WRITE
            for at in range(section.rva, section.rva + section.size, PAGE_SIZE):
                space.map_fresh(base + at, flags)

    def _lay_module_list(self, images: LoadedImages) -> list[SimulatedModule]:
        """KLDR entries in nonpaged pool, their names in pool; nt first, hal second."""
        space = self.space
        modules: list[SimulatedModule] = []
        for name, (plan, base) in self._plans.items():
            spec = plan.spec
            entry = space.nonpaged.allocate(KLDR_DATA_TABLE_ENTRY64.size, b"MmLd")
            short = spec.path if spec.path.startswith("multi(") else spec.file_name
            full_length, full_maximum, full = space.unicode_string(spec.path)
            base_name = short.encode("utf-16-le")
            table, table_size = plan.exception_table
            values = {
                "exception_table": base + table,
                "exception_table_size": table_size,
                "dll_base": base,
                "entry_point": base + plan.entry_rva,
                "size_of_image": plan.size,
                "full_dll_name_length": full_length,
                "full_dll_name_maximum": full_maximum,
                "full_dll_name": full,
                "base_dll_name_length": len(base_name),
                "base_dll_name_maximum": len(base_name) + 2,
                "base_dll_name": space.nonpaged.place(base_name + b"\0\0", b"MmLd"),
                "flags": 0x08804000 if name == "nt" else 0x49104000,
                "load_count": 0x57 if name == "nt" else 1,
                "check_sum": spec.check_sum,
                "size_of_image_not_rounded": plan.size,
                "time_date_stamp": spec.time_date_stamp,
            }
            space.write(entry, KLDR_DATA_TABLE_ENTRY64.encode(values))
            modules.append(
                SimulatedModule(
                    name=name,
                    file_name=spec.file_name,
                    path=spec.path,
                    base=base,
                    size=plan.size,
                    entry_point=base + plan.entry_rva,
                    time_date_stamp=spec.time_date_stamp,
                    check_sum=spec.check_sum,
                    entry_address=entry,
                )
            )
        space.link_list(self.symbols["PsLoadedModuleList"], [module.entry_address for module in modules])
        return modules

    def _lay_unloaded_modules(self) -> list[UnloadedModule]:
        """The ring of unloaded drivers, three slots of it used."""
        space = self.space
        ring = space.nonpaged.allocate(UNLOADED_DRIVER64.size * UNLOADED_DRIVER_SLOTS, b"MmDT")
        unloaded: list[UnloadedModule] = []
        start = space.addresses.drivers + 0x4000000
        for number, name in enumerate(("dump_storport.sys", "dump_dumpfve.sys", "WdFilter.sys")):
            size = self.rng.randrange(4, 40) * PAGE_SIZE
            time = self.options.system_time - self.options.uptime + (number + 1) * 70_000_000
            length, maximum, buffer = space.unicode_string(name, b"MmUn")
            module = UnloadedModule(name, start, start + size, time)
            values = {
                "name_length": length,
                "name_maximum": maximum,
                "name": buffer,
                "start_address": module.start,
                "end_address": module.end,
                "current_time": module.time,
            }
            space.write(ring + number * UNLOADED_DRIVER64.size, UNLOADED_DRIVER64.encode(values))
            unloaded.append(module)
            start += size + 16 * PAGE_SIZE
        space.write_qwords(self.symbols["MmUnloadedDrivers"], ring)
        space.write(self.symbols["MmLastUnloadedDriver"], struct.pack("<I", len(unloaded)))
        return unloaded

    def _lay_shared_data(self) -> tuple[SharedData, int]:
        """KUSER_SHARED_DATA at its fixed address; returns it and its physical address."""
        options = self.options
        shared = SharedData(
            system_time=options.system_time,
            interrupt_time=options.uptime,
            time_zone_bias=-36_000_000_000,
            build=options.build,
            product_type=1,
            suite_mask=0x110,
            processors=options.processors,
            physical_pages=self.image.runs.page_count,
            kd_debugger_enabled=3 if options.debugger_attached else 1,
        )
        physical = self.space.map_fresh(SHARED_DATA_ADDRESS, PteFlag.NO_EXECUTE)
        self.image.write(physical, encode_shared_data(shared, self.profile))
        return shared, physical

    def _lay_processes(self, shared: int) -> tuple[SimulatedProcess, SimulatedProcess, SimulatedProcess]:
        """System, smss and two user processes in the list; Idle is not in it. Returns System, Idle and a user one."""
        space, profile = self.space, self.profile
        system = build_process(space, profile, "System", 4, 0, self.tables, None)
        idle = build_process(space, profile, "Idle", 0, 0, self.tables, None)
        self.processes.append(system)
        for name, process_id, parent in (
            ("smss.exe", 0x14C, 4),
            ("csrss.exe", 0x1D8, 0x14C),
            ("lab.exe", 0xA2C, 0x1D8),
        ):
            tables = PageTables(self.image, self.frames.allocate)
            tables.map_self(space.addresses.self_map_slot)
            self.processes.append(build_process(space, profile, name, process_id, parent, tables, shared))
        links = profile.eprocess.active_process_links
        space.link_list(self.symbols["PsActiveProcessHead"], [part.address + links for part in self.processes])
        return system, idle, self.processes[-1]

    def _lay_processors(
        self, images: LoadedImages, system: SimulatedProcess, idle: SimulatedProcess, user: SimulatedProcess
    ) -> tuple[list[SimulatedProcessor], Standing]:
        """Every processor with its threads, and what the stopped one stands in."""
        options, profile, space = self.options, self.profile, self.space
        processors: list[SimulatedProcessor] = []
        stopped: Standing | None = None
        pool = tuple(space.nonpaged.base + 0x40 * number for number in range(64))
        for number in range(options.processors):
            idle_thread = build_thread(space, profile, idle, 0, number)
            interrupt_stack, _ = space.allocate_stack()
            tables = build_descriptor_tables(space, images, interrupt_stack)
            owner = {"idle": idle, "system": system, "user": user}

            def new_thread(
                kind: Literal["idle", "system", "user"],
                number: int = number,
                idle_thread: SimulatedThread = idle_thread,
                owner: dict[str, SimulatedProcess] = owner,
            ) -> SimulatedThread:
                if kind == "idle":
                    return idle_thread
                return build_thread(space, profile, owner[kind], 0x40 + 4 * number, number)

            standing = make_chain(
                images,
                self.rng,
                pool,
                new_thread,
                stop=options.stop if number == options.stopped_processor else None,
                number=number,
                bug_check=(options.bug_check.code, options.bug_check.parameters),
            )
            if number == options.stopped_processor:
                stopped = standing
            thread = standing.thread
            space.write(thread.stack_limit, bytes(standing.chain.memory))
            if number == 0:
                pcr = self.symbols["KiInitialPCR"]
            else:
                pcr = space.nonpaged.allocate(profile.prcb.size + PCR_PRCB, b"KPCR", PAGE_SIZE)
            prcb = pcr + PCR_PRCB
            if profile.prcb.context is None or self.kdbg_size < 0x33A:
                context_address = prcb + profile.prcb.context_frame
            else:
                # Processor 1's lies across a page boundary, as pool blocks do.
                offset = PAGE_SIZE - 0x200 if number == 1 else 0
                context_address = space.nonpaged.allocate(
                    AMD64.context.size, b"Xsav", PAGE_SIZE if offset else 64, offset
                )
            specials = special_values(
                pcr, tables, thread.process.directory_table_base, images, standing.level, thread.process.teb
            )
            if standing.fault_address:
                specials["cr2"] = standing.fault_address
            lay_processor(
                space, profile, number, pcr, thread, idle_thread.address, tables, specials, context_address,
                AMD64.context.encode(standing.stale_context), interrupt_stack,
            )  # fmt: skip
            space.write_qwords(self.symbols["KiProcessorBlock"] + 8 * number, prcb)
            processors.append(
                SimulatedProcessor(
                    number=number,
                    pcr=pcr,
                    prcb=prcb,
                    thread=thread.address,
                    process=thread.process.address,
                    context_address=context_address,
                    context_values=standing.context,
                    special_values=specials,
                    gdt=tables.gdt,
                    idt=tables.idt,
                    tss=tables.tss,
                    stack_base=thread.stack_base,
                    stack_limit=thread.stack_limit,
                    frames=tuple(standing.chain.frames),
                )
            )
        if stopped is None:
            raise SimulationError(f"processor {options.stopped_processor} never stopped")
        return processors, stopped

    def _version(self, base: int) -> GetVersion64:
        """What GetVersion answers."""
        profile = self.profile
        return GetVersion64(
            major_version=0x0C if profile.checked else 0x0F,
            minor_version=self.options.build,
            protocol_version=6,
            kd_secondary_version=2,
            flags=profile.version_flags,
            machine_type=AMD64.machine_type,
            max_packet_type=0x0C,
            max_state_change=3,
            max_manipulate=profile.max_manipulate,
            simulation=0,
            kern_base=base,
            ps_loaded_module_list=self.symbols["PsLoadedModuleList"],
            debugger_data_list=self.symbols["KdpDebuggerDataListHead"],
        )

    def _build_lab(self) -> str:
        _, dot, rest = self.profile.build_lab.partition(".")
        return f"{self.options.build}{dot}{rest}"

    def _lay_variables(
        self, version: GetVersion64, bug_check: tuple[int, int, int, int, int], break_status: int | None
    ) -> KdbgKey | None:
        """Values of the variables that the KDBG points to; returns the key if the block is to be encoded."""
        space, symbols, runs = self.space, self.symbols, self.image.runs
        descriptor = encode_physical_memory_descriptor(list(runs))
        text = f"KDTARGET: Refreshing KD connection\n\n*** Fatal System Error: 0x{bug_check[0]:08x}\n".encode()
        prints = text if bug_check[0] else b"mydrv: queue is up\n"
        buffer = symbols["KdPrintDefaultCircularBuffer"]
        space.write(buffer, prints)
        numbers = {
            "ExpNumberOfPagedPools": 4,
            "KeTimeIncrement": 156250,
            "KdPrintBufferSize": 0x1000,
            "KdPrintCircularBuffer": buffer,
            "KdPrintWritePointer": buffer + len(prints),
            "MmAvailablePages": runs.page_count // 2,
            "MmHighestPhysicalPage": runs.end_page - 1,
            "MmHighestUserAddress": 0x7FFFFFFEFFFF,
            "MmLowestPhysicalPage": runs[0].base_page,
            "MmNonPagedPoolStart": space.addresses.nonpaged_pool,
            "MmNonPagedPoolEnd": space.addresses.nonpaged_pool + 0x10000000,
            "MmNumberOfPagingFiles": 1,
            "MmNumberOfPhysicalPages": runs.page_count,
            "MmPagedPoolCommit": 0x300,
            "MmPagedPoolStart": space.addresses.paged_pool,
            "MmPagedPoolEnd": space.addresses.paged_pool + 0x10000000,
            "MmPfnDatabase": space.addresses.pfn_database,
            "MmPhysicalMemoryBlock": space.nonpaged.place(descriptor, b"MmPh"),
            "MmSizeOfPagedPoolInBytes": 0x10000000,
            "MmSystemRangeStart": SYSTEM_RANGE_START,
            "MmTotalCommitLimit": runs.page_count,
            "MmTotalCommittedPages": runs.page_count // 3,
            "MmUserProbeAddress": 0x7FFFFFFF0000,
            "ObpRootDirectoryObject": space.paged.allocate(0x150, b"Dire"),
            "ObpTypeObjectType": space.nonpaged.allocate(0xD8, b"ObjT"),
            "PoolTrackTable": space.nonpaged.allocate(0x500, b"PTab"),
            "PspCidTable": space.paged.allocate(0x80, b"Obtb"),
        }
        for name, value in numbers.items():
            if name in symbols:
                space.write_qwords(symbols[name], value)
        for name in ("ExpSystemResourcesList", "KeBugCheckCallbackListHead", "IopErrorLogListHead"):
            space.link_list(symbols[name], [])
        space.write(symbols["NtBuildLab"], self._build_lab().encode("ascii"))
        space.write(symbols["KdVersionBlock"], version.encode())
        space.write_qwords(symbols["KiInitialPCR"] + 0x108, symbols["KdVersionBlock"])
        space.map_fresh(space.addresses.pfn_database)
        never, always = self.rng.getrandbits(64), self.rng.getrandbits(64)
        space.write_qwords(symbols["KiWaitNever"], never)
        space.write_qwords(symbols["KiWaitAlways"], always)
        if not self.options.encoded_kdbg:
            return None
        space.write(symbols["KdpDataBlockEncoded"], b"\x01")
        return KdbgKey(never, always, symbols["KdpDataBlockEncoded"])

    def _link_debugger_data(self, head: int, block: int) -> tuple[int, int]:
        """The list of debugger data; returns the block's own links, which it holds itself."""
        if not self.options.foreign_block:
            self.space.write_qwords(head, block, block)
            return head, head
        foreign = self.symbols["KdpForeignDataBlock"]
        self.space.write_qwords(head, foreign, block)
        self.space.write(foreign, struct.pack("<QQ4sI", block, head, b"NDIS", 0x28))
        return head, foreign

    def _map_devices(self) -> None:
        """Leaves that point to what is not RAM, and one that points to both."""
        tables, base = self.tables, self.space.addresses.devices
        uncached = PteFlag.WRITE | PteFlag.NO_EXECUTE | PteFlag.CACHE_DISABLED | PteFlag.WRITE_THROUGH
        tables.map(base, _LAPIC << PAGE_SHIFT, PAGE_SIZE, uncached)
        tables.map(base + PAGE_SIZE, _IOAPIC << PAGE_SHIFT, PAGE_SIZE, uncached)
        for number in range(_FRAME_BUFFER.page_count // 512):
            physical = (_FRAME_BUFFER.base_page << PAGE_SHIFT) + number * MIB2
            if physical >> PAGE_SHIFT not in self.image.runs:
                tables.map(base + MIB2 + number * MIB2, physical, MIB2, uncached)
        # Low memory as the HAL keeps it: one large page over RAM, VGA memory and ROM.
        tables.map(base + 0x10000000, 0, MIB2)
        wanted = self.options.gigabyte_page
        if wanted or (wanted is None and self.options.memory_size >= 4 * GIB):
            start = next(
                (
                    at
                    for run in reversed(list(self.image.runs))
                    for at in range(-(-run.base_page // 0x40000) * 0x40000, run.end_page - 0x3FFFF, 0x40000)
                ),
                None,
            )
            if start is None:
                raise SimulationError("no run of memory holds a whole aligned 1 GiB page")
            tables.map(self.space.addresses.large_pool, start << PAGE_SHIFT, GIB)

    def _fill(self) -> PageRuns:
        """Data that is not zero: in large pool pages, in the system cache page by page, and in pages nobody maps."""
        options, space = self.options, self.space
        size = options.content_size
        if size is None:
            size = min(4 << 20, (self.image.runs.page_count << PAGE_SHIFT) // 16)
        cache = space.addresses.system_cache
        runs: list[PageRun] = []
        left = size >> PAGE_SHIFT
        pool = space.addresses.large_pool + 2 * GIB
        for number in range(left // 512 if space.large_pages else 0):
            block = self.frames.allocate_block(512, 512)
            if block is None:
                break
            runs.append(PageRun(block, 512))
            left -= 512
            if number % 4 in (0, 1):
                space.tables.map(pool, block << PAGE_SHIFT, MIB2)
                pool += MIB2
            elif number % 4 == 2:
                space.tables.map_run(cache, block << PAGE_SHIFT, 512)
                cache += MIB2
        cache += MIB2
        for number in range(left):
            pfn = self.frames.allocate()
            runs.append(PageRun(pfn, 1))
            if number % 2:
                space.tables.map(cache + number * PAGE_SIZE, pfn << PAGE_SHIFT)
        content = PageRuns(runs)
        seed = f"content {options.seed} ".encode()

        def make_page(pfn: int) -> bytes:
            return hashlib.shake_128(seed + pfn.to_bytes(8, "little")).digest(PAGE_SIZE)

        self.image.add_backing(PageBacking(content, make_page))
        return content

    def _lay_odd_entries(self, content: PageRuns) -> None:
        """Page table entries that are not valid: in transition, in the page file, prototypes."""
        base = self.space.addresses.system_cache + (1 << 38)
        frames = [run.base_page for run in content][:8]
        for number, pfn in enumerate(frames):
            flags = PteFlag.TRANSITION | PteFlag.WRITE
            self.tables.set_entry(base + number * PAGE_SIZE, pfn << PAGE_SHIFT | flags)
        place = base + 0x100 * PAGE_SIZE
        self.tables.set_entry(place, 0x1234 << 32 | 4 << 5)  # page file offset 1234, read and write
        self.tables.set_entry(place + PAGE_SIZE, self.space.paged.base >> 16 << 16 | PteFlag.PROTOTYPE)
        self.tables.set_entry(place + 2 * PAGE_SIZE, 4 << 5)  # demand zero

    def _choose_unreadable(self, content: PageRuns) -> set[int]:
        """Pages of the content that fail: no structure that a debugger walks lies in them."""
        if not self.options.unreadable_pages:
            return set()
        pages = list(content.pages())
        if len(pages) < self.options.unreadable_pages:
            raise SimulationError(f"{len(pages)} pages of content: too few to make so many unreadable")
        return set(self.rng.sample(pages, self.options.unreadable_pages))
