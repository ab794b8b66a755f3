"""The loader: images laid into memory, the list of loaded modules, and the ring of those that were unloaded."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protocol.address import PAGE_SHIFT, PAGE_SIZE
from protocol.layouts.kernel import KLDR_DATA_TABLE_ENTRY64, UNLOADED_DRIVER64, UNLOADED_DRIVER_SLOTS

from .debugger_data import kernel_variables
from .errors import SimulationError
from .modules import driver_specs, kernel_spec
from .paging import MIB2, PteFlag
from .pe import ImagePlan, ImageSpec, plan_image
from .processors import PCR_PRCB
from .profile import KernelProfile
from .space import KernelSpace
from .stacks import LoadedImages

__all__ = [
    "LoadedModules",
    "SimulatedModule",
    "UnloadedModule",
    "lay_module_list",
    "lay_unloaded_modules",
    "load_images",
]


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
class LoadedModules:
    """Every image as it was planned, with its base, in load order; `images` finds names in them."""

    images: LoadedImages
    plans: dict[str, tuple[ImagePlan, int]]


def load_images(
    space: KernelSpace, profile: KernelProfile, more: Sequence[ImageSpec] = (), *, linked: bool = False
) -> LoadedModules:
    """Lay out, link and map the kernel, its drivers, and `more`.

    `linked`: with all that a linker makes (see ImageSpec).
    """
    large = space.large_pages and space.addresses.kernel % MIB2 == 0
    variables = kernel_variables(profile, profile.prcb.size + PCR_PRCB)
    specs = [
        kernel_spec(profile, variables, large=large, linked=linked),
        *driver_specs(profile, small=not space.large_pages, linked=linked),
        *more,
    ]
    images: dict[str, tuple[ImagePlan, int]] = {}
    next_base = space.addresses.drivers
    for spec in specs:
        plan = plan_image(spec, space.rng)
        if spec.name == "nt":
            images["nt"] = plan, space.addresses.kernel
            continue
        images[spec.name] = plan, next_base
        next_base += plan.size + space.rng.randrange(1, 32) * PAGE_SIZE
    loaded = LoadedImages(images)
    addresses = loaded.addresses()
    for name, (plan, base) in images.items():
        _map_image(space, plan, base, large=large and name == "nt")
        content = plan.link(base, addresses)
        for at in range(0, plan.size, PAGE_SIZE):
            page = content[at : at + PAGE_SIZE]
            if page.strip(b"\0") and space.tables.translate(base + at) is not None:
                space.write(base + at, page)
    return LoadedModules(loaded, images)


def _map_image(space: KernelSpace, plan: ImagePlan, base: int, *, large: bool) -> None:
    """A kernel that was loaded by large pages is mapped as a whole; other images by section, without INIT."""
    if large:
        for at in range(0, plan.size, MIB2):
            block = space.frames.allocate_block(512, 512)
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


def lay_module_list(space: KernelSpace, loaded: LoadedModules, list_head: int) -> list[SimulatedModule]:
    """KLDR entries in nonpaged pool, their names in pool; nt first, hal second."""
    modules: list[SimulatedModule] = []
    for name, (plan, base) in loaded.plans.items():
        spec = plan.spec
        short = spec.path if spec.path.startswith("multi(") else spec.file_name
        base_name = short.encode("utf-16-le")
        # The loader allocates an entry together with the name, which stands behind it.
        entry = space.nonpaged.allocate(KLDR_DATA_TABLE_ENTRY64.size + len(base_name) + 2, b"MmLd")
        full_length, full_maximum, full = space.unicode_string(spec.path)
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
            "base_dll_name": entry + KLDR_DATA_TABLE_ENTRY64.size,
            "flags": 0x08804000 if name == "nt" else 0x49104000,
            "load_count": 0x57 if name == "nt" else 1,
            "check_sum": spec.check_sum,
            "size_of_image_not_rounded": plan.size,
            "time_date_stamp": spec.time_date_stamp,
        }
        space.write(entry, KLDR_DATA_TABLE_ENTRY64.encode(values) + base_name + b"\0\0")
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
    space.link_list(list_head, [module.entry_address for module in modules])
    return modules


def lay_unloaded_modules(space: KernelSpace, symbols: Mapping[str, int], booted: int) -> list[UnloadedModule]:
    """The ring of unloaded drivers, three slots of it used. `booted` is a FILETIME."""
    ring = space.nonpaged.allocate(UNLOADED_DRIVER64.size * UNLOADED_DRIVER_SLOTS, b"MmDT")
    unloaded: list[UnloadedModule] = []
    start = space.addresses.drivers + 0x4000000
    for number, name in enumerate(("dump_storport.sys", "dump_dumpfve.sys", "WdFilter.sys")):
        size = space.rng.randrange(4, 40) * PAGE_SIZE
        time = booted + (number + 1) * 70_000_000
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
    space.write_qwords(symbols["MmUnloadedDrivers"], ring)
    space.write(symbols["MmLastUnloadedDriver"], struct.pack("<I", len(unloaded)))
    return unloaded
