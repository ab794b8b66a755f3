"""What differs between Windows versions in the memory of a machine: sizes, offsets, what is randomised.

Values of 19041 and 9600 are those of real machines (dump-formats 5, kdnet 10.1), but for what a debugger finds by
symbols only: lists of threads, sessions, KVA shadow. These, and the values of the other versions, are models: right
where the reference tells them (KDBG size, processor state, CONTEXT pointer), believable elsewhere.
No reader may depend on them but through the KDBG.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "PROFILES",
    "EprocessLayout",
    "KernelProfile",
    "KthreadLayout",
    "PrcbLayout",
    "kdbg_size_for",
    "profile_for",
]


@dataclass(frozen=True, slots=True)
class PrcbLayout:
    """KPRCB: its size and what is where in it. `context` is None before Windows 7: no pointer to a CONTEXT."""

    size: int
    special_registers: int
    special_registers_size: int
    context_frame: int
    context: int | None
    number: int
    number_size: int
    mhz: int
    cpu_type: int
    vendor_string: int
    dpc_routine: int
    normal_dpc_state: int
    dpc_stack: int
    isr_stack: int


@dataclass(frozen=True, slots=True)
class KthreadLayout:
    """KTHREAD and ETHREAD."""

    size: int
    initial_stack: int
    stack_limit: int
    stack_base: int
    kernel_stack: int
    teb: int
    apc_process: int
    state: int
    next_processor: int
    wait_reason: int
    queue_list_entry: int
    irp_list: int
    process: int
    client_id: int
    start_address: int
    thread_list_entry: int
    """KTHREAD.ThreadListEntry: in the list that begins in KPROCESS."""
    process_list_entry: int
    """ETHREAD.ThreadListEntry: in the list that begins in EPROCESS."""


@dataclass(frozen=True, slots=True)
class EprocessLayout:
    """KPROCESS and EPROCESS. The directory table base lies at 28 in all of them, the list of threads behind it."""

    size: int
    peb: int
    parent_cid: int
    unique_process_id: int
    active_process_links: int
    image_file_name: int
    session: int
    """EPROCESS.Session: a pointer to MM_SESSION_SPACE."""
    threads_of_process: int
    """EPROCESS.ThreadListHead."""
    user_directory_table_base: int | None
    """KPROCESS.UserDirectoryTableBase (KVA shadow); None where no update ever brought it."""
    directory_table_base: int = 0x28
    thread_list_head: int = 0x30
    """KPROCESS.ThreadListHead."""


@dataclass(frozen=True, slots=True)
class KernelProfile:
    """One version of the kernel, as far as its memory tells."""

    first_build: int
    build: int
    build_lab: str
    nt_version: tuple[int, int]
    kdbg_size: int
    max_manipulate: int
    version_flags: int
    checked: bool
    randomized: bool
    """Page tables and pools lie in PML4 slots of their own at every boot (Windows 10 1607 and later)."""
    unrandomized_kernel: int | None
    """Where the kernel always lies; None where its place changes at every boot."""
    memory_manager_variables: bool
    """The KDBG still points to the old memory manager variables, which are null since Windows 8."""
    prcb: PrcbLayout
    kthread: KthreadLayout
    eprocess: EprocessLayout


_NT52 = KernelProfile(
    first_build=0,
    build=3790,
    build_lab="3790.srv03_sp2_rtm.070216-1710",
    nt_version=(5, 2),
    kdbg_size=0x318,
    max_manipulate=0x2E,
    version_flags=0x07,
    checked=True,
    randomized=False,
    unrandomized_kernel=0xFFFFF800_01000000,
    memory_manager_variables=True,
    prcb=PrcbLayout(0x2480, 0x40, 0xD8, 0x120, None, 0x04, 1, 0x5F4, 0x5F0, 0x600, 0x1F2A, 0, 0x1F10, 0),
    kthread=KthreadLayout(
        0x428, 0x28, 0x38, 0x30, 0x40, 0xB0, 0x68, 0x154, 0x1AC, 0x156, 0, 0, 0x200, 0x3D8, 0x3E8, 0x260, 0x3F8
    ),
    eprocess=EprocessLayout(0x408, 0x2C0, 0x1A8, 0xD8, 0xE0, 0x268, 0x260, 0x290, None),
)

_WIN7 = KernelProfile(
    first_build=6000,
    build=7601,
    build_lab="7601.17514.amd64fre.win7sp1_rtm.101119-1850",
    nt_version=(6, 1),
    kdbg_size=0x340,
    max_manipulate=0x2E,
    version_flags=0x07,
    checked=False,
    randomized=False,
    unrandomized_kernel=None,
    memory_manager_variables=True,
    prcb=PrcbLayout(0x4D00, 0x40, 0xD8, 0x120, 0x4BD8, 0x24, 4, 0x5F4, 0x5F0, 0x4BB8, 0x21EA, 0, 0x21C0, 0),
    kthread=KthreadLayout(
        0x498, 0x28, 0x30, 0x278, 0x38, 0xB8, 0x70, 0x164, 0x1B4, 0x26B, 0x1E8, 0x3E0, 0x210, 0x3B0, 0x388, 0x2F8, 0x420
    ),
    eprocess=EprocessLayout(0x4D0, 0x338, 0x290, 0x180, 0x188, 0x2E0, 0x2D8, 0x308, 0x110),
)

_WIN81 = KernelProfile(
    first_build=9200,
    build=9600,
    build_lab="9600.17085.amd64fre.winblue_gdr.140330-1035",
    nt_version=(6, 3),
    kdbg_size=0x360,
    max_manipulate=0x31,
    version_flags=0x07,
    checked=False,
    randomized=False,
    unrandomized_kernel=None,
    memory_manager_variables=False,
    prcb=PrcbLayout(0x5D80, 0x40, 0xE0, 0x120, 0x5980, 0x24, 4, 0x5F4, 0x5F0, 0x5958, 0x2DEA, 0x2DEC, 0x2DD0, 0x5998),
    kthread=KthreadLayout(
        0x778, 0x28, 0x30, 0x38, 0x58, 0xF0, 0xB8, 0x184, 0x218, 0x283, 0x208, 0x658, 0x220, 0x628, 0x608, 0x2F8, 0x688
    ),
    eprocess=EprocessLayout(0x6D8, 0x3E8, 0x3D0, 0x2E0, 0x2E8, 0x438, 0x430, 0x470, 0x278),
)

_WIN10 = KernelProfile(
    first_build=14393,
    build=19041,
    build_lab="19041.1.amd64fre.vb_release.191206-1406",
    nt_version=(10, 0),
    kdbg_size=0x380,
    max_manipulate=0x31,
    version_flags=0x47,
    checked=False,
    randomized=True,
    unrandomized_kernel=None,
    memory_manager_variables=False,
    prcb=PrcbLayout(0xAF00, 0x100, 0xF0, 0x1F0, 0x85C0, 0x24, 4, 0x44, 0x40, 0x8590, 0x312A, 0x312C, 0x3110, 0x85D8),
    kthread=KthreadLayout(
        0x898, 0x28, 0x30, 0x38, 0x58, 0xF0, 0xB8, 0x184, 0x218, 0x283, 0x208, 0x4B0, 0x220, 0x478, 0x450, 0x2F8, 0x4E8
    ),
    eprocess=EprocessLayout(0xA40, 0x550, 0x540, 0x440, 0x448, 0x5A8, 0x558, 0x5E0, 0x388),
)

_WIN11 = KernelProfile(
    first_build=22621,
    build=22621,
    build_lab="22621.1.amd64fre.ni_release.220506-1250",
    nt_version=(10, 0),
    kdbg_size=0x3A0,
    max_manipulate=0x31,
    version_flags=0x47,
    checked=False,
    randomized=True,
    unrandomized_kernel=None,
    memory_manager_variables=False,
    prcb=PrcbLayout(0xBF00, 0x100, 0xF0, 0x1F0, 0x8DC0, 0x24, 4, 0x44, 0x40, 0x8D90, 0x34AA, 0x34AC, 0x3490, 0x8DD8),
    kthread=KthreadLayout(
        0x900, 0x28, 0x30, 0x38, 0x58, 0xF0, 0xB8, 0x184, 0x218, 0x283, 0x208, 0x4F0, 0x220, 0x4C8, 0x4A0, 0x2F8, 0x538
    ),
    eprocess=EprocessLayout(0xB80, 0x550, 0x540, 0x440, 0x448, 0x5A8, 0x558, 0x5E0, 0x388),
)

PROFILES = (_NT52, _WIN7, _WIN81, _WIN10, _WIN11)
"""Oldest first."""

_KDBG_SIZES = ((3790, 0x318), (6000, 0x328), (6001, 0x330), (7600, 0x340), (9200, 0x360), (14393, 0x368),
              (17763, 0x380), (22000, 0x390), (22621, 0x3A0))  # fmt: skip
"""Size of the KDBG by the first build that has it (kd-protocol 6.2)."""


def profile_for(build: int) -> KernelProfile:
    """The profile that fits a build best."""
    return next(profile for profile in reversed(PROFILES) if build >= profile.first_build)


def kdbg_size_for(build: int) -> int:
    """How long this build's KDBG is."""
    return next((size for first, size in reversed(_KDBG_SIZES) if build >= first), _KDBG_SIZES[0][1])
