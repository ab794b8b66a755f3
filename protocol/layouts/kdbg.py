"""KDDEBUGGER_DATA64 ("KDBG"): where the kernel keeps what a debugger needs, in every size (kd-protocol 6).

Unless its name starts with offset_, size_ or gdt_, a field holds the *address* of the kernel variable of that name,
not its value. Exceptions, which are values: kern_base, breakpoint_with_status, saved_context, mm_page_size, pte_base.
"""

from __future__ import annotations

from dataclasses import dataclass

import construct as cs

from protocol.errors import LayoutError
from protocol.structure import Structure, StructureLayout

__all__ = [
    "KDBG_TAG",
    "KDDEBUGGER_DATA64",
    "LARGEST_SIZE",
    "SMALLEST_SIZE",
    "KdbgKey",
    "decode_block",
    "encode_block",
    "parse_kdbg",
]

KDBG_TAG = 0x4742444B
"""OwnerTag: the bytes "KDBG"."""

SMALLEST_SIZE, LARGEST_SIZE = 0x208, 0x4000
"""What a believable Size lies between (kd-protocol 6.1): Windows 2000 had 208, the newest known is 3A8."""

_KDBG = cs.Struct(
    # Windows 2000
    "flink" / cs.Int64ul,
    "blink" / cs.Int64ul,
    "owner_tag" / cs.Int32ul,
    "size" / cs.Int32ul,
    "kern_base" / cs.Int64ul,
    "breakpoint_with_status" / cs.Int64ul,
    "saved_context" / cs.Int64ul,
    "th_callback_stack" / cs.Int16ul,
    "next_callback" / cs.Int16ul,
    "frame_pointer" / cs.Int16ul,
    "pae_enabled" / cs.Int16ul,
    "ki_call_user_mode" / cs.Int64ul,
    "ke_user_callback_dispatcher" / cs.Int64ul,
    "ps_loaded_module_list" / cs.Int64ul,
    "ps_active_process_head" / cs.Int64ul,
    "psp_cid_table" / cs.Int64ul,
    "exp_system_resources_list" / cs.Int64ul,
    "exp_paged_pool_descriptor" / cs.Int64ul,
    "exp_number_of_paged_pools" / cs.Int64ul,
    "ke_time_increment" / cs.Int64ul,
    "ke_bug_check_callback_list_head" / cs.Int64ul,
    "ki_bugcheck_data" / cs.Int64ul,
    "iop_error_log_list_head" / cs.Int64ul,
    "obp_root_directory_object" / cs.Int64ul,
    "obp_type_object_type" / cs.Int64ul,
    "mm_system_cache_start" / cs.Int64ul,
    "mm_system_cache_end" / cs.Int64ul,
    "mm_system_cache_ws" / cs.Int64ul,
    "mm_pfn_database" / cs.Int64ul,
    "mm_system_ptes_start" / cs.Int64ul,
    "mm_system_ptes_end" / cs.Int64ul,
    "mm_subsection_base" / cs.Int64ul,
    "mm_number_of_paging_files" / cs.Int64ul,
    "mm_lowest_physical_page" / cs.Int64ul,
    "mm_highest_physical_page" / cs.Int64ul,
    "mm_number_of_physical_pages" / cs.Int64ul,
    "mm_maximum_non_paged_pool_in_bytes" / cs.Int64ul,
    "mm_non_paged_system_start" / cs.Int64ul,
    "mm_non_paged_pool_start" / cs.Int64ul,
    "mm_non_paged_pool_end" / cs.Int64ul,
    "mm_paged_pool_start" / cs.Int64ul,
    "mm_paged_pool_end" / cs.Int64ul,
    "mm_paged_pool_information" / cs.Int64ul,
    "mm_page_size" / cs.Int64ul,
    "mm_size_of_paged_pool_in_bytes" / cs.Int64ul,
    "mm_total_commit_limit" / cs.Int64ul,
    "mm_total_committed_pages" / cs.Int64ul,
    "mm_shared_commit" / cs.Int64ul,
    "mm_driver_commit" / cs.Int64ul,
    "mm_process_commit" / cs.Int64ul,
    "mm_paged_pool_commit" / cs.Int64ul,
    "mm_extended_commit" / cs.Int64ul,
    "mm_zeroed_page_list_head" / cs.Int64ul,
    "mm_free_page_list_head" / cs.Int64ul,
    "mm_standby_page_list_head" / cs.Int64ul,
    "mm_modified_page_list_head" / cs.Int64ul,
    "mm_modified_no_write_page_list_head" / cs.Int64ul,
    "mm_available_pages" / cs.Int64ul,
    "mm_resident_available_pages" / cs.Int64ul,
    "pool_track_table" / cs.Int64ul,
    "non_paged_pool_descriptor" / cs.Int64ul,
    "mm_highest_user_address" / cs.Int64ul,
    "mm_system_range_start" / cs.Int64ul,
    "mm_user_probe_address" / cs.Int64ul,
    "kd_print_circular_buffer" / cs.Int64ul,
    "kd_print_circular_buffer_end" / cs.Int64ul,
    "kd_print_write_pointer" / cs.Int64ul,
    "kd_print_rollover_count" / cs.Int64ul,
    "mm_loaded_user_image_list" / cs.Int64ul,
    # XP
    "nt_build_lab" / cs.Int64ul,
    "ki_normal_system_call" / cs.Int64ul,
    "ki_processor_block" / cs.Int64ul,
    "mm_unloaded_drivers" / cs.Int64ul,
    "mm_last_unloaded_driver" / cs.Int64ul,
    "mm_triage_action_taken" / cs.Int64ul,
    "mm_special_pool_tag" / cs.Int64ul,
    "kernel_verifier" / cs.Int64ul,
    "mm_verifier_data" / cs.Int64ul,
    "mm_allocated_non_paged_pool" / cs.Int64ul,
    "mm_peak_commitment" / cs.Int64ul,
    "mm_total_commit_limit_maximum" / cs.Int64ul,
    "cm_nt_csd_version" / cs.Int64ul,
    "mm_physical_memory_block" / cs.Int64ul,
    "mm_session_base" / cs.Int64ul,
    "mm_session_size" / cs.Int64ul,
    "mm_system_parent_table_page" / cs.Int64ul,
    # Server 2003
    "mm_virtual_translation_base" / cs.Int64ul,
    "offset_kthread_next_processor" / cs.Int16ul,
    "offset_kthread_teb" / cs.Int16ul,
    "offset_kthread_kernel_stack" / cs.Int16ul,
    "offset_kthread_initial_stack" / cs.Int16ul,
    "offset_kthread_apc_process" / cs.Int16ul,
    "offset_kthread_state" / cs.Int16ul,
    "offset_kthread_bstore" / cs.Int16ul,
    "offset_kthread_bstore_limit" / cs.Int16ul,
    "size_eprocess" / cs.Int16ul,
    "offset_eprocess_peb" / cs.Int16ul,
    "offset_eprocess_parent_cid" / cs.Int16ul,
    "offset_eprocess_directory_table_base" / cs.Int16ul,
    "size_prcb" / cs.Int16ul,
    "offset_prcb_dpc_routine" / cs.Int16ul,
    "offset_prcb_current_thread" / cs.Int16ul,
    "offset_prcb_mhz" / cs.Int16ul,
    "offset_prcb_cpu_type" / cs.Int16ul,
    "offset_prcb_vendor_string" / cs.Int16ul,
    "offset_prcb_proc_state_context" / cs.Int16ul,
    "offset_prcb_number" / cs.Int16ul,
    "size_ethread" / cs.Int16ul,
    # 19H1
    "l1tf_high_physical_bit_index" / cs.Int8ul,
    "l1tf_swizzle_bit_index" / cs.Int8ul,
    # Server 2003
    cs.Padding(4),
    "kd_print_circular_buffer_ptr" / cs.Int64ul,
    "kd_print_buffer_size" / cs.Int64ul,
    "ke_loader_block" / cs.Int64ul,
    "size_pcr" / cs.Int16ul,
    "offset_pcr_self_pcr" / cs.Int16ul,
    "offset_pcr_current_prcb" / cs.Int16ul,
    "offset_pcr_contained_prcb" / cs.Int16ul,
    "offset_pcr_initial_bstore" / cs.Int16ul,
    "offset_pcr_bstore_limit" / cs.Int16ul,
    "offset_pcr_initial_stack" / cs.Int16ul,
    "offset_pcr_stack_limit" / cs.Int16ul,
    "offset_prcb_pcr_page" / cs.Int16ul,
    "offset_prcb_proc_state_special_reg" / cs.Int16ul,
    "gdt_r0_code" / cs.Int16ul,
    "gdt_r0_data" / cs.Int16ul,
    "gdt_r0_pcr" / cs.Int16ul,
    "gdt_r3_code" / cs.Int16ul,
    "gdt_r3_data" / cs.Int16ul,
    "gdt_r3_teb" / cs.Int16ul,
    "gdt_ldt" / cs.Int16ul,
    "gdt_tss" / cs.Int16ul,
    "gdt64_r3_cm_code" / cs.Int16ul,
    "gdt64_r3_cm_teb" / cs.Int16ul,
    "iop_num_triage_dump_data_blocks" / cs.Int64ul,
    "iop_triage_dump_data_blocks" / cs.Int64ul,
    # Vista
    "vf_crash_data_block" / cs.Int64ul,
    # Vista (0x328 without the last, SP1 adds it)
    "mm_bad_pages_detected" / cs.Int64ul,
    "mm_zeroed_page_single_bit_errors_detected" / cs.Int64ul,
    # Windows 7
    "etwp_debugger_data" / cs.Int64ul,
    "offset_prcb_context" / cs.Int16ul,
    # Windows 8
    "offset_prcb_max_breakpoints" / cs.Int16ul,
    "offset_prcb_max_watchpoints" / cs.Int16ul,
    cs.Padding(2),
    "offset_kthread_stack_limit" / cs.Int32ul,
    "offset_kthread_stack_base" / cs.Int32ul,
    "offset_kthread_queue_list_entry" / cs.Int32ul,
    "offset_ethread_irp_list" / cs.Int32ul,
    "offset_prcb_idle_thread" / cs.Int16ul,
    "offset_prcb_normal_dpc_state" / cs.Int16ul,
    "offset_prcb_dpc_stack" / cs.Int16ul,
    "offset_prcb_isr_stack" / cs.Int16ul,
    "size_kdpc_stack_frame" / cs.Int16ul,
    # 8.1
    "offset_kpri_queue_thread_list_head" / cs.Int16ul,
    "offset_kthread_wait_reason" / cs.Int16ul,
    # 10 RS1 (14393)
    cs.Padding(2),
    "pte_base" / cs.Int64ul,
    # 10 RS5 (17763)
    "retpoline_stub_function_table" / cs.Int64ul,
    "retpoline_stub_function_table_size" / cs.Int32ul,
    "retpoline_stub_offset" / cs.Int32ul,
    "retpoline_stub_size" / cs.Int32ul,
    # Iron (Server 2022)
    "offset_eprocess_mm_hot_patch_context" / cs.Int16ul,
    # 11 21H2
    cs.Padding(2),
    "offset_kthread_shadow_stack_limit" / cs.Int32ul,
    "offset_kthread_shadow_stack_base" / cs.Int32ul,
    "shadow_stack_enabled" / cs.Int64ul,
    # 11 22H2
    "pointer_auth_mask" / cs.Int64ul,
    "offset_prcb_exception_stack" / cs.Int16ul,
    # newest SDK
    cs.Padding(6),
    "pointer_ignore_bits" / cs.Int64ul,
)

KDDEBUGGER_DATA64 = StructureLayout(
    "KDDEBUGGER_DATA64",
    _KDBG,
    {
        "owner_tag": 0x10,
        "size": 0x14,
        "kern_base": 0x18,
        "saved_context": 0x28,
        "ps_loaded_module_list": 0x48,
        "ps_active_process_head": 0x50,
        "ki_bugcheck_data": 0x88,
        "mm_pfn_database": 0xC0,
        "nt_build_lab": 0x208,
        "ki_processor_block": 0x218,
        "mm_physical_memory_block": 0x270,
        "offset_kthread_next_processor": 0x298,
        "size_eprocess": 0x2A8,
        "size_prcb": 0x2B0,
        "offset_prcb_proc_state_context": 0x2BC,
        "size_ethread": 0x2C0,
        "l1tf_swizzle_bit_index": 0x2C3,
        "kd_print_circular_buffer_ptr": 0x2C8,
        "size_pcr": 0x2E0,
        "offset_prcb_proc_state_special_reg": 0x2F2,
        "gdt_r0_code": 0x2F4,
        "iop_num_triage_dump_data_blocks": 0x308,
        "etwp_debugger_data": 0x330,
        "offset_prcb_context": 0x338,
        "offset_kthread_stack_limit": 0x340,
        "offset_prcb_idle_thread": 0x350,
        "pte_base": 0x360,
        "retpoline_stub_function_table": 0x368,
        "offset_eprocess_mm_hot_patch_context": 0x37C,
        "shadow_stack_enabled": 0x388,
        "offset_prcb_exception_stack": 0x398,
        "pointer_ignore_bits": 0x3A0,
    },
    0x3A8,
)


def parse_kdbg(data: bytes, address: int | None = None, pointer_size: int = 8) -> Structure:
    """Decode a plain (not encoded) block. A field exists only up to the block's own Size.

    Of 32-bit kernels some addresses in it are sign-extended and some are not: here none is.
    Raises LayoutError when the tag is not KDBG (it may be encoded), or Size is not believable.
    """
    header = KDDEBUGGER_DATA64.decode(data, least=0x18, address=address)
    if header["owner_tag"] != KDBG_TAG:
        problem = f"the tag is {header['owner_tag']:#010x}, not 'KDBG': another block, or an encoded one"
        raise LayoutError("KDDEBUGGER_DATA64", problem, address)
    if not SMALLEST_SIZE <= header["size"] <= LARGEST_SIZE:
        raise LayoutError("KDDEBUGGER_DATA64", f"Size {header['size']:#x} is not believable", address)
    block = KDDEBUGGER_DATA64.decode(data[: header["size"]], least=0x18, address=address)
    if pointer_size == 8:
        return block
    return Structure(block.name, {name: value & 0xFFFF_FFFF for name, value in block.values.items()}, block.raw)


_MASK = (1 << 64) - 1


def _rotate_left(value: int, count: int) -> int:
    count %= 64
    return (value << count | value >> (64 - count)) & _MASK


def _swap(value: int) -> int:
    return int.from_bytes(value.to_bytes(8, "little"), "big")


@dataclass(frozen=True, slots=True)
class KdbgKey:
    """What a kernel that was booted without debugging encodes its block with (kd-protocol 6.5)."""

    ki_wait_never: int
    ki_wait_always: int
    kdp_data_block_encoded: int
    """The virtual address of that byte, not its value."""

    def decode(self, value: int) -> int:
        """One encoded 64-bit word to the plain one."""
        value = _rotate_left(value ^ self.ki_wait_never, self.ki_wait_never & 0xFF)
        return _swap(value ^ self.kdp_data_block_encoded) ^ self.ki_wait_always

    def encode(self, value: int) -> int:
        """The inverse of decode."""
        value = _swap(value ^ self.ki_wait_always) ^ self.kdp_data_block_encoded
        return _rotate_left(value, 64 - (self.ki_wait_never & 0xFF) % 64) ^ self.ki_wait_never


def decode_block(data: bytes, key: KdbgKey) -> bytes:
    """Decode whole 64-bit words of an encoded block; a rest of less than eight bytes is dropped."""
    return b"".join(
        key.decode(int.from_bytes(data[at : at + 8], "little")).to_bytes(8, "little")
        for at in range(0, len(data) // 8 * 8, 8)
    )


def encode_block(data: bytes, key: KdbgKey) -> bytes:
    """The inverse of decode_block: what such a kernel keeps in its memory."""
    return b"".join(
        key.encode(int.from_bytes(data[at : at + 8], "little")).to_bytes(8, "little")
        for at in range(0, len(data) // 8 * 8, 8)
    )
