"""Where the images in memory and their files differ: bytes that somebody patched, and files of another build."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from protocol.address import PAGE_SHIFT

from .errors import SimulationError
from .loader import LoadedModules
from .options import KernelOptions
from .pe import ImagePlan
from .space import KernelSpace

__all__ = ["ImageFiles", "patch_modules"]

_UNUSED_LAST = frozenset({"nt", "hal", "disk"})
"""Images whose last function is on no stack."""


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """What the files of a machine's modules are made from, by module, and how they differ from memory."""

    plans: Mapping[str, ImagePlan]
    patched: Mapping[str, int]
    """The address of a byte in memory that nobody should have written to."""
    mismatched: frozenset[str]
    """Modules whose files are those of another build."""
    modified: frozenset[int]
    """Frames patched through another mapping, which is gone: their PFN records say that they were modified."""


def patch_modules(space: KernelSpace, loaded: LoadedModules, options: KernelOptions) -> ImageFiles:
    """Change a byte in the memory of as many modules as are asked for, and choose those whose files do not fit."""
    rng = random.Random(f"images {options.seed}")
    wanted = max(options.patched_modules, options.mismatched_images)
    if not 0 <= wanted <= len(loaded.plans):
        raise SimulationError(f"there are {len(loaded.plans)} modules, not {wanted}")
    patched: dict[str, int] = {}
    modified: set[int] = set()
    for name in rng.sample(list(loaded.plans), options.patched_modules):
        plan, base = loaded.plans[name]
        address = base + _harmless_place(plan, rng)
        physical = space.tables.translate(address)
        byte = space.image.read(physical, 1) if physical is not None else None
        if byte is None or physical is None:
            raise SimulationError(f"{name} is not mapped at {address:#x}")
        space.write(address, bytes([byte[0] ^ rng.randrange(1, 256)]))
        patched[name] = address
        # With write protection off the processor marks the entry; the memory manager marks the frame of a locked page.
        if rng.randrange(2):
            space.tables.mark_written(address)
        else:
            modified.add(physical >> PAGE_SHIFT)
    mismatched = frozenset(rng.sample(list(loaded.plans), options.mismatched_images))
    plans = {name: replace(plan, content=plan.content.rstrip(b"\0")) for name, (plan, _) in loaded.plans.items()}
    return ImageFiles(plans, patched, mismatched, frozenset(modified))


def _harmless_place(plan: ImagePlan, rng: random.Random) -> int:
    """The RVA of a byte of code that nothing which is shown or executed goes through."""
    pageable = next(section for section in plan.sections if section.name == "PAGE")
    unused = plan.spec.functions[-1].name if plan.spec.name in _UNUSED_LAST else None
    if unused is not None and rng.randrange(2):
        return plan.rvas[unused] + rng.randrange(len(plan.functions[unused].code))
    return pageable.rva + rng.randrange(pageable.size)
