"""A believable x64 NT kernel's memory, generated: one seed gives one machine, down to the last byte.

What a debugger can find is told beside it as plain values, so that a test need not believe any reader.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from protocol.address import PAGE_SHIFT, PageRuns
from protocol.arch import AMD64
from protocol.layouts.kdbg import KdbgKey
from protocol.layouts.version import GetVersion64
from protocol.structure import Structure

from .debugger_data import build_debugger_data
from .errors import SimulationError
from .filling import choose_unreadable, device_memory, fill, lay_odd_entries, map_devices
from .frames import FrameAllocator, believable_runs
from .image import MemoryImage
from .lineup import lay_processors
from .loader import SimulatedModule, UnloadedModule, lay_module_list, lay_unloaded_modules, load_images
from .options import BugCheck, KernelOptions, StopKind
from .paging import GIB, PageTables, PteFlag, read_virtual
from .processes import SimulatedProcess, build_process
from .processors import SimulatedProcessor
from .profile import KernelProfile, kdbg_size_for, profile_for
from .shared_data import SharedData, encode_shared_data
from .space import SHARED_DATA_ADDRESS, KernelSpace, plan_addresses
from .variables import lay_variables, link_debugger_data

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

_SYSTEM_ROOT_PAGE = 0x1AA
"""System's PML4: where boot loaders put it, and the first place where memory forensics looks."""

_USUAL_CONTENT = 4 << 20


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
        return read_virtual(self.image, self.directory_table_base if root is None else root, address, size)


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
        self.image = MemoryImage(runs, device=device_memory(runs))
        frames = FrameAllocator(runs, self.rng)
        root = _SYSTEM_ROOT_PAGE if frames.take(_SYSTEM_ROOT_PAGE) else frames.allocate()
        self.tables = PageTables(self.image, frames.allocate, root << PAGE_SHIFT)
        addresses = plan_addresses(self.rng, self.profile.randomized, self.profile.unrandomized_kernel)
        self.pte_base = self.tables.map_self(addresses.self_map_slot)
        self.space = KernelSpace(self.image, frames, self.tables, addresses, self.rng)

    def build(self) -> SimulatedKernel:
        """All parts, in the order in which they need each other."""
        options, profile, space = self.options, self.profile, self.space
        loaded = load_images(space, profile)
        symbols = {**loaded.images.symbols(), "ImageBase": space.addresses.kernel}
        modules = lay_module_list(space, loaded, symbols["PsLoadedModuleList"])
        unloaded = lay_unloaded_modules(space, symbols, options.system_time - options.uptime)
        shared, shared_physical = self._lay_shared_data()
        processes, idle = self._lay_processes(shared_physical, symbols["PsActiveProcessHead"])
        processors, stopped = lay_processors(
            space,
            options,
            profile,
            self.kdbg_size,
            loaded.images,
            symbols,
            {"idle": idle, "system": processes[0], "user": processes[-1]},
        )
        bug_check = stopped.bug_check or (0, 0, 0, 0, 0)
        space.write_qwords(symbols["KiBugCheckData"], *bug_check)
        version = _version(options.build, profile, symbols)
        build_lab = f"{options.build}.{profile.build_lab.partition('.')[2]}"
        key = lay_variables(space, symbols, version, bug_check, build_lab, encoded=options.encoded_kdbg)
        block = symbols["KdDebuggerDataBlock"]
        data = build_debugger_data(
            profile,
            symbols,
            size=self.kdbg_size,
            links=link_debugger_data(space, symbols, foreign_block=options.foreign_block),
            saved_context=stopped.saved_context,
            pte_base=self.pte_base,
            key=key,
        )
        space.write(block, data.in_memory)
        large = options.memory_size >= 4 * GIB if options.gigabyte_page is None else options.gigabyte_page
        map_devices(space, gigabyte_page=large)
        size = options.content_size
        if size is None:
            size = min(_USUAL_CONTENT, (self.image.runs.page_count << PAGE_SHIFT) // 16)
        content = fill(space, size, options.seed)
        lay_odd_entries(space, content)
        for process in processes:
            if process.tables is not self.tables:
                self.tables.share_kernel_half(process.tables)
        self.image.unreadable |= choose_unreadable(self.rng, content, options.unreadable_pages)
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
            debugger_data_list=symbols["KdpDebuggerDataListHead"],
            kdbg=data.plain,
            kdbg_key=key,
            modules=tuple(modules),
            unloaded_modules=tuple(unloaded),
            processes=tuple(processes),
            processors=tuple(processors),
            stopped_processor=options.stopped_processor,
            break_status=stopped.break_status,
            bug_check=bug_check,
            symbols=symbols,
            build_lab=build_lab,
            shared_data=shared,
            system_time=shared.system_time,
            content=content,
        )

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

    def _lay_processes(self, shared: int, head: int) -> tuple[list[SimulatedProcess], SimulatedProcess]:
        """System, smss and two user processes, which are in the list; and Idle, which is not."""
        space, profile = self.space, self.profile
        system = build_process(space, profile, "System", 4, 0, self.tables, None)
        idle = build_process(space, profile, "Idle", 0, 0, self.tables, None)
        processes = [system]
        for name, process_id, parent in (
            ("smss.exe", 0x14C, 4),
            ("csrss.exe", 0x1D8, 0x14C),
            ("lab.exe", 0xA2C, 0x1D8),
        ):
            tables = PageTables(self.image, space.frames.allocate)
            tables.map_self(space.addresses.self_map_slot)
            processes.append(build_process(space, profile, name, process_id, parent, tables, shared))
        links = profile.eprocess.active_process_links
        space.link_list(head, [part.address + links for part in processes])
        return processes, idle


def _version(build: int, profile: KernelProfile, symbols: dict[str, int]) -> GetVersion64:
    """What GetVersion answers."""
    return GetVersion64(
        major_version=0x0C if profile.checked else 0x0F,
        minor_version=build,
        protocol_version=6,
        kd_secondary_version=2,
        flags=profile.version_flags,
        machine_type=AMD64.machine_type,
        max_packet_type=0x0C,
        max_state_change=3,
        max_manipulate=profile.max_manipulate,
        simulation=0,
        kern_base=symbols["ImageBase"],
        ps_loaded_module_list=symbols["PsLoadedModuleList"],
        debugger_data_list=symbols["KdpDebuggerDataListHead"],
    )
