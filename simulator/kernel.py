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

from .call_chains import chains_image
from .debugger_data import build_debugger_data
from .errors import SimulationError
from .filling import choose_unreadable, device_memory, fill, fill_unmapped, lay_odd_entries, map_devices
from .frame_states import FrameStates
from .frames import FrameAllocator, believable_runs
from .image import MemoryImage
from .lineup import lay_processors
from .loader import SimulatedModule, UnloadedModule, lay_module_list, lay_unloaded_modules, load_images
from .modules import other_drivers
from .options import BugCheck, KernelOptions, StopKind
from .paging import GIB, PageTables, PteFlag, read_virtual
from .patches import ImageFiles, patch_modules
from .pfn_database import PfnArray
from .processes import PROCESS_NAMES, SimulatedProcess, SimulatedThread, build_process, map_large_user_page
from .processors import SimulatedProcessor
from .profile import KernelProfile, kdbg_size_for, profile_for
from .sessions import lay_private_memory, lay_session, private_slots
from .shadow import ShadowTables
from .shared_data import SharedData, encode_shared_data
from .space import SHARED_DATA_ADDRESS, KernelSpace, plan_addresses
from .stacks import LoadedImages
from .transition import lay_transition
from .variables import lay_variables, link_debugger_data
from .waiting import build_waiting_thread, link_threads

__all__ = [
    "BugCheck",
    "KernelOptions",
    "SimulatedKernel",
    "SimulatedModule",
    "SimulatedProcess",
    "SimulatedProcessor",
    "SimulatedThread",
    "StopKind",
    "UnloadedModule",
    "build_kernel",
]

_SYSTEM_ROOT_PAGE = 0x1AA
"""System's PML4: where boot loaders put it, and the first place where memory forensics looks."""

_USUAL_CONTENT = 4 << 20
_CSRSS, _LAB = 2, 3
"""The process whose threads call drivers, by its place in the list."""

_SHADOW = 1 << 36
"""The tables of KVA shadow lie so far into the system PTEs."""

_ODD = 1 << 38
""""Pages in transition lie so far into paged pool."""

_WAITING_THREADS = 0x1000
"""The first id."""


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
    guilty: str
    """The module that made the machine stop; empty where none did."""
    crash_site: int
    """The instruction that raised the exception; 0 where there was none."""
    bug_check: tuple[int, int, int, int, int]
    """Code and parameters; all 0 where there was none."""
    symbols: dict[str, int]
    """The kernel's names plain, the drivers' as "mydrv!ReadBuffer"."""
    build_lab: str
    shared_data: SharedData
    system_time: int
    content: PageRuns
    """Frames filled with data."""
    idle_process: SimulatedProcess
    """It is in no list."""
    threads: tuple[SimulatedThread, ...]
    """Those that processors run, then those that wait."""
    image_files: ImageFiles
    frame_states: FrameStates | None
    """What is true of each frame, where the machine has a PFN database (even one that tells it to nobody)."""

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
        if options.guilty_driver not in ("mydrv", "labflt"):
            raise SimulationError(f"{options.guilty_driver} is not guilty: mydrv or labflt can be")
        if not 4 <= options.processes <= 1000 or not 0 <= options.waiting_threads <= 100:
            raise SimulationError(
                f"{options.processes} processes with {options.waiting_threads} threads: too few or many"
            )
        if options.memory_size < 16 << 20:
            raise SimulationError(f"{options.memory_size:#x} bytes of memory: at least 16 MiB are needed")
        self.options = options
        self.profile = profile_for(options.build)
        if options.kva_shadow and self.profile.eprocess.user_directory_table_base is None:
            raise SimulationError(f"build {options.build} has no KVA shadow")
        if options.user_roots_in_registers and not options.kva_shadow:
            raise SimulationError("without KVA shadow there are no user roots to hold in registers")
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
        self.more = random.Random(f"more {options.seed}")
        self.slots = private_slots(addresses, self.more, randomized=self.profile.randomized)
        self.shadow = ShadowTables(self.space, addresses.system_ptes + _SHADOW) if options.kva_shadow else None
        # Blocks before anything else, while there are some.
        self.large_user_block = frames.allocate_block(512, 512) if options.large_user_page else None
        self.pfn_array = PfnArray(self.space, options.pfn_layout) if options.pfn_database != "none" else None

    def build(self) -> SimulatedKernel:
        """All parts, in the order in which they need each other."""
        options, profile, space = self.options, self.profile, self.space
        more = list(other_drivers(profile, options.more_modules))
        if options.call_chains is not None:
            more.append(chains_image(options.call_chains, options.processors))
        loaded = load_images(space, profile, more, linked=options.linked_images)
        if self.pfn_array is not None:
            self.pfn_array.map_rest()
        symbols = {**loaded.images.symbols(), "ImageBase": space.addresses.kernel}
        modules = lay_module_list(space, loaded, symbols["PsLoadedModuleList"])
        unloaded = lay_unloaded_modules(space, symbols, options.system_time - options.uptime)
        shared, shared_physical = self._lay_shared_data()
        processes, idle = self._lay_processes(shared_physical, symbols["PsActiveProcessHead"])
        processors, stopped, threads = lay_processors(
            space,
            options,
            profile,
            self.kdbg_size,
            loaded.images,
            symbols,
            {"idle": idle, "system": processes[0], "user": processes[_LAB], "critical": processes[_CSRSS]},
        )
        threads += self._lay_waiting_threads(loaded.images, [*processes, idle], threads)
        bug_check = stopped.bug_check or (0, 0, 0, 0, 0)
        space.write_qwords(symbols["KiBugCheckData"], *bug_check)
        version = _version(options.build, profile, symbols)
        build_lab = f"{options.build}.{profile.build_lab.partition('.')[2]}"
        key = lay_variables(
            space,
            symbols,
            version,
            bug_check,
            build_lab,
            encoded=options.encoded_kdbg,
            database=self.pfn_array is not None,
            rolled_over=options.many_prints,
        )
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
        if options.unmapped_pages:
            content |= fill_unmapped(space, options.unmapped_pages, options.seed)
        self._lay_private_memory(processes)
        if self.shadow is not None:
            self.shadow.fill(processes, processors, symbols)
        for process in processes:
            if process.tables is not self.tables:
                self.tables.share_kernel_half(process.tables, self.slots)
        files = patch_modules(space, loaded, options)
        self.image.unreadable |= choose_unreadable(self.rng, content, options.unreadable_pages)
        states = self._fill_pfn_database(processes, content, files.modified)
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
            guilty=stopped.guilty,
            crash_site=stopped.crash_site,
            bug_check=bug_check,
            symbols=symbols,
            build_lab=build_lab,
            shared_data=shared,
            system_time=shared.system_time,
            content=content,
            idle_process=idle,
            threads=tuple(threads),
            image_files=files,
            frame_states=states,
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
        """System and user processes, smss first, which are in the list; and Idle, which is not."""
        space, profile = self.space, self.profile
        system = build_process(space, profile, "System", 4, 0, self.tables, None)
        idle = build_process(space, profile, "Idle", 0, 0, self.tables, None)
        processes = [system]
        for number in range(self.options.processes - 1):
            name, session = PROCESS_NAMES[min(number, len(PROCESS_NAMES) - 2 + number % 2)]
            tables = PageTables(self.image, space.frames.allocate)
            tables.map_self(space.addresses.self_map_slot)
            process = build_process(
                space,
                profile,
                name,
                *self._process_ids(number),
                tables,
                shared,
                session=session if self.options.sessions else None,
                user_root=self.shadow.new_root() if self.shadow is not None else 0,
            )
            processes.append(process)
        if self.large_user_block is not None:
            map_large_user_page(space, processes[_LAB], self.large_user_block)
        links = profile.eprocess.active_process_links
        space.link_list(head, [part.address + links for part in processes])
        return processes, idle

    @staticmethod
    def _process_ids(number: int) -> tuple[int, int]:
        """Id and parent's id of a user process."""
        first = ((0x14C, 4), (0x1D8, 0x14C), (0xA2C, 0x1D8))
        return first[number] if number < len(first) else (0xB00 + 0x1C * number, 0x14C)

    def _lay_waiting_threads(
        self, images: LoadedImages, processes: list[SimulatedProcess], running: list[SimulatedThread]
    ) -> list[SimulatedThread]:
        """Threads that wait, in every process but Idle, the last; and the lists of all."""
        if not self.options.waiting_threads:
            return []
        waiting: list[SimulatedThread] = []
        for process in processes[:-1]:
            for _ in range(self.options.waiting_threads):
                thread_id = _WAITING_THREADS + 4 * len(waiting)
                waiting.append(build_waiting_thread(self.space, self.profile, images, process, thread_id, self.more))
        link_threads(self.space, self.profile, processes, [*running, *waiting])
        return waiting

    def _lay_private_memory(self, processes: list[SimulatedProcess]) -> None:
        """Sessions, what each process has for itself, and pages in transition everywhere."""
        space, options, more = self.space, self.options, self.more
        session_slot, private_slot = self.slots
        count = options.transition_pages
        if options.sessions:
            for number in (0, 1):
                members = [process for process in processes if process.session == number]
                lay_session(space, self.profile, number, session_slot, members, count, more)
        if options.private_kernel_memory:
            lay_private_memory(space, private_slot, processes, count, more)
        lay_transition(space, self.tables, space.addresses.paged_pool + _ODD, count, more)
        for process in processes[1:]:
            lay_transition(space, process.tables, (process.teb & -(1 << 32)) + (1 << 30), count, more)

    def _fill_pfn_database(
        self, processes: list[SimulatedProcess], content: PageRuns, modified: frozenset[int]
    ) -> FrameStates | None:
        """The truth about all frames, and the array that tells it or does not."""
        if self.pfn_array is None:
            return None
        states = FrameStates(self.image, self.pte_base, self.options.seed)
        for process in processes:
            states.walk(process.directory_table_base)
            if process.user_directory_table_base:
                states.walk(process.user_directory_table_base)
        states.finish(content, self.space.paged.base + (_ODD >> 1), self.more)
        if self.options.pfn_database == "true":
            self.pfn_array.fill(states, modified)
        else:
            self.pfn_array.scramble(self.options.seed)
        return states


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
