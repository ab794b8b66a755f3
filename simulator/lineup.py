"""All processors of a machine, each with its threads, stack and structures, and the one that stopped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from protocol.address import PAGE_SIZE
from protocol.arch import AMD64

from .call_chains import plan_chain, stand_in_chain
from .crashes import CRASHES, Crashes
from .errors import SimulationError
from .options import KernelOptions
from .power import lay_power_objects
from .processes import SimulatedProcess, SimulatedThread, build_thread
from .processors import PCR_PRCB, SimulatedProcessor, build_descriptor_tables, lay_processor, special_values
from .profile import KernelProfile
from .situations import Situations, Standing, ThreadKind
from .space import KernelSpace
from .stacks import LoadedImages

__all__ = ["lay_processors"]

_FIRST_BREAK, _LAST_BREAK = 3, 4
"""DBG_STATUS_BUGCHECK_FIRST and _SECOND (kd-protocol 7.1)."""


def lay_processors(
    space: KernelSpace,
    options: KernelOptions,
    profile: KernelProfile,
    kdbg_size: int,
    images: LoadedImages,
    symbols: Mapping[str, int],
    owner: Mapping[ThreadKind, SimulatedProcess],
) -> tuple[list[SimulatedProcessor], Standing, list[SimulatedThread]]:
    """Every processor, what the stopped one stands in, and all threads. `owner` names a process for each kind."""
    processors: list[SimulatedProcessor] = []
    threads: list[SimulatedThread] = []
    stopped: Standing | None = None
    pool = tuple(space.nonpaged.base + 0x40 * number for number in range(64))
    for number in range(options.processors):
        idle_thread = build_thread(space, profile, owner["idle"], 0, number)
        threads.append(idle_thread)
        interrupt_stack, _ = space.allocate_stack()
        tables = build_descriptor_tables(space, images, interrupt_stack)

        def new_thread(
            kind: ThreadKind, number: int = number, idle_thread: SimulatedThread = idle_thread
        ) -> SimulatedThread:
            if kind == "idle":
                return idle_thread
            threads.append(build_thread(space, profile, owner[kind], 0x40 + 4 * number, number))
            return threads[-1]

        if options.call_chains is not None and number != options.stopped_processor:
            standing = stand_in_chain(plan_chain(options.call_chains, number), space, images, space.rng, new_thread)
        else:
            situations = Situations(images, space.rng, pool, new_thread)
            if number == options.stopped_processor:
                power = partial(lay_power_objects, space, images, ("ACPI", options.guilty_driver, "labflt"))
                crashes = Crashes(situations, options.guilty_driver, owner["critical"].address, power)
                standing = _stopped(options, situations, crashes)
            else:
                standing = situations.frozen(number)
        if number == options.stopped_processor:
            stopped = standing
        thread = standing.thread
        space.write(thread.stack_limit, bytes(standing.chain.memory))
        if number == 0:
            pcr = symbols["KiInitialPCR"]
        else:
            pcr = space.nonpaged.allocate(profile.prcb.size + PCR_PRCB, b"KPCR", PAGE_SIZE)
        prcb = pcr + PCR_PRCB
        if profile.prcb.context is None or kdbg_size < 0x33A:
            context_address = prcb + profile.prcb.context_frame
        else:
            # Processor 1's lies across a page boundary, as pool blocks do.
            offset = PAGE_SIZE - 0x200 if number == 1 else 0
            context_address = space.nonpaged.allocate(AMD64.context.size, b"Xsav", PAGE_SIZE if offset else 64, offset)
        root = thread.process.directory_table_base
        if options.user_roots_in_registers and standing.from_user and number != options.stopped_processor:
            root = thread.process.user_directory_table_base
        specials = special_values(pcr, tables, root, images, standing.level, thread.process.teb)
        if standing.fault_address:
            specials["cr2"] = standing.fault_address
        lay_processor(
            space, profile, number, pcr, thread, idle_thread.address, tables, specials, context_address,
            AMD64.context.encode(standing.stale_context), interrupt_stack,
        )  # fmt: skip
        space.write_qwords(symbols["KiProcessorBlock"] + 8 * number, prcb)
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
    return processors, stopped, threads


def _stopped(options: KernelOptions, situations: Situations, crashes: Crashes) -> Standing:
    """Where the processor stands that stopped the machine."""
    if options.stop == "running":
        return situations.broken_in()
    if options.stop == "breakpoint":
        return situations.driver_breakpoint()
    status = _FIRST_BREAK if options.stop == "bugcheck-first" else _LAST_BREAK
    bug_check = options.bug_check
    if bug_check.parameters is None and bug_check.code in CRASHES:
        return CRASHES[bug_check.code].play(crashes, status)
    return crashes.gives_up(bug_check.code, bug_check.parameters or (0, 0, 0, 0), status)
