"""Machines by seed: every feature of the simulated memory on or off by lot, for tests that hold on any machine."""

from __future__ import annotations

import random

from simulator.options import BugCheck, KernelOptions, PfnKind
from simulator.pfn_layout import PFN_LAYOUTS

__all__ = ["random_machine"]

_BUILDS = (3790, 7601, 9600, 14393, 19041, 19041, 22621)
_PFN_DATABASES: tuple[PfnKind, ...] = ("none", "true", "true", "true", "scrambled")


def random_machine(seed: int) -> KernelOptions:
    """32 to 512 MiB with holes, 1 to 4 processors."""
    rng = random.Random(f"machine {seed}")

    def maybe() -> bool:
        return rng.randrange(2) == 0

    build = rng.choice(_BUILDS)
    processors = rng.randrange(1, 5)
    shadow = maybe() and build > 3790
    return KernelOptions(
        seed=seed,
        build=build,
        processors=processors,
        stopped_processor=rng.randrange(processors),
        memory_size=rng.choice((32, 48, 64, 128, 256, 512)) << 20,
        runs=rng.choice((None, 1, 3, 7, 20, 60)),
        stop=rng.choice(("bugcheck-final", "bugcheck-first", "breakpoint")),
        bug_check=BugCheck(rng.choice((0xD1, 0x0A, 0xE2))),
        debugger_attached=True,
        content_size=rng.choice((None, 0, 1 << 20, 6 << 20)),
        processes=rng.choice((4, 5, 9, 14)),
        waiting_threads=rng.choice((0, 0, 1, 3)),
        sessions=maybe(),
        private_kernel_memory=maybe(),
        kva_shadow=shadow,
        user_roots_in_registers=shadow and maybe(),
        transition_pages=rng.choice((0, 3, 9)),
        unmapped_pages=rng.choice((0, 40, 300)),
        large_user_page=maybe(),
        pfn_database=rng.choice(_PFN_DATABASES),
        pfn_layout=rng.choice(PFN_LAYOUTS),
        linked_images=maybe(),
        patched_modules=rng.choice((0, 0, 1, 3)),
        mismatched_images=rng.choice((0, 0, 2)),
    )
