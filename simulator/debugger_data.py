"""The KDBG and the kernel variables it points to: declared before the image is laid out, filled afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.layouts.kdbg import KDBG_TAG, KDDEBUGGER_DATA64, KdbgKey, encode_block, parse_kdbg
from protocol.structure import Structure

from .pe import Variable
from .processors import PCR_PRCB
from .profile import KernelProfile

__all__ = ["PROCESSOR_SLOTS", "DebuggerData", "build_debugger_data", "kernel_variables"]

PROCESSOR_SLOTS = 257
"""Entries of KiProcessorBlock: one for every processor there can be, and a null that ends the list."""

_FIRST_POINTER, _POINTERS = 0x38, {
    "ki_bugcheck_data": "KiBugCheckData",
    "cm_nt_csd_version": "CmNtCSDVersion",
    "kd_print_circular_buffer": "KdPrintDefaultCircularBuffer",
    "kd_print_circular_buffer_ptr": "KdPrintCircularBuffer",
}  # fmt: skip
_VALUES = frozenset({"mm_page_size", "kd_print_circular_buffer_end", "pte_base", "ki_call_user_mode",
                     "retpoline_stub_function_table", "shadow_stack_enabled", "pointer_auth_mask",
                     "pointer_ignore_bits"})  # fmt: skip
_ALWAYS_NULL = frozenset({"ke_user_callback_dispatcher", "ki_normal_system_call", "mm_virtual_translation_base",
                          "mm_loaded_user_image_list", "vf_crash_data_block", "mm_bad_pages_detected",
                          "mm_zeroed_page_single_bit_errors_detected"})  # fmt: skip
# Null in 19041 (dump-formats 5): the memory manager keeps these in structures without names since Windows 8.
_NULL_SINCE_8 = frozenset({
    "exp_paged_pool_descriptor", "exp_number_of_paged_pools", "mm_system_cache_start", "mm_system_cache_end",
    "mm_system_cache_ws", "mm_system_ptes_start", "mm_system_ptes_end", "mm_subsection_base",
    "mm_number_of_paging_files", "mm_maximum_non_paged_pool_in_bytes", "mm_non_paged_system_start",
    "mm_non_paged_pool_start", "mm_non_paged_pool_end", "mm_paged_pool_start", "mm_paged_pool_end",
    "mm_paged_pool_information", "mm_total_commit_limit", "mm_total_committed_pages", "mm_shared_commit",
    "mm_driver_commit", "mm_process_commit", "mm_extended_commit", "mm_zeroed_page_list_head",
    "mm_free_page_list_head", "mm_standby_page_list_head", "mm_modified_page_list_head",
    "mm_modified_no_write_page_list_head", "mm_available_pages", "mm_resident_available_pages",
    "non_paged_pool_descriptor", "mm_allocated_non_paged_pool", "mm_peak_commitment",
    "mm_total_commit_limit_maximum", "mm_session_base", "mm_session_size", "mm_system_parent_table_page",
})  # fmt: skip
_NULL_SINCE_10 = frozenset({"mm_lowest_physical_page", "mm_highest_physical_page", "mm_number_of_physical_pages"})
_SIZES = {"KiBugCheckData": 40, "NtBuildLab": 0x100, "KdPrintDefaultCircularBuffer": 0x1000,
          "KiProcessorBlock": 8 * PROCESSOR_SLOTS}  # fmt: skip


def _variable_of(field: str) -> str:
    return _POINTERS.get(field) or "".join(part.capitalize() for part in field.split("_"))


def _pointer_fields(profile: KernelProfile) -> list[str]:
    """Fields that hold the address of a variable in this version."""
    layout = KDDEBUGGER_DATA64
    null = _ALWAYS_NULL | (frozenset() if profile.memory_manager_variables else _NULL_SINCE_8)
    if profile.randomized:
        null |= _NULL_SINCE_10
    return [
        field
        for field in layout.fields
        if layout.size_of(field) == 8
        and layout.offset_of(field) >= _FIRST_POINTER
        and field not in null
        and field not in _VALUES
    ]


def kernel_variables(profile: KernelProfile, size_pcr: int) -> tuple[Variable, ...]:
    """What the kernel's data section holds; processor 0's KPCR is part of the image."""
    named = [_variable_of(field) for field in _pointer_fields(profile)]
    return (
        *(Variable(name, _SIZES.get(name, 16), 16) for name in named),
        Variable("KdDebuggerDataBlock", KDDEBUGGER_DATA64.size + 8, 16),
        Variable("KdpDebuggerDataListHead", 16),
        Variable("KdVersionBlock", 40),
        Variable("KiWaitNever"),
        Variable("KiWaitAlways"),
        Variable("KdpDataBlockEncoded", 1),
        Variable("KdpForeignDataBlock", 0x28, 16),
        Variable("RetpolineStubFunctionTable", 0x120, 16),
        Variable("KiInitialPCR", size_pcr, 0x1000),
    )


@dataclass(frozen=True, slots=True)
class DebuggerData:
    """The block as it is meant, and as memory holds it."""

    plain: Structure
    in_memory: bytes


def build_debugger_data(
    profile: KernelProfile,
    symbols: Mapping[str, int],
    *,
    size: int,
    links: tuple[int, int],
    saved_context: int,
    pte_base: int,
    key: KdbgKey | None,
) -> DebuggerData:
    """The block with every pointer this version has; encoded in memory when there is a key."""
    prcb, thread, process = profile.prcb, profile.kthread, profile.eprocess
    values: dict[str, int] = {field: symbols[_variable_of(field)] for field in _pointer_fields(profile)}
    values |= {
        "flink": links[0],
        "blink": links[1],
        "owner_tag": KDBG_TAG,
        "size": size,
        "kern_base": symbols["ImageBase"],
        "breakpoint_with_status": symbols["DbgBreakPointWithStatus"],
        "saved_context": saved_context,
        "pae_enabled": 1,
        "ki_call_user_mode": symbols["KiCallUserMode"],
        "mm_page_size": 0x1000,
        "kd_print_circular_buffer_end": symbols["KdPrintDefaultCircularBuffer"] + 0x1000,
        "offset_kthread_next_processor": thread.next_processor,
        "offset_kthread_teb": thread.teb,
        "offset_kthread_kernel_stack": thread.kernel_stack,
        "offset_kthread_initial_stack": thread.initial_stack,
        "offset_kthread_apc_process": thread.apc_process,
        "offset_kthread_state": thread.state,
        "size_eprocess": process.size,
        "offset_eprocess_peb": process.peb,
        "offset_eprocess_parent_cid": process.parent_cid,
        "offset_eprocess_directory_table_base": process.directory_table_base,
        "size_prcb": prcb.size,
        "offset_prcb_dpc_routine": prcb.dpc_routine,
        "offset_prcb_current_thread": 8,
        "offset_prcb_mhz": prcb.mhz,
        "offset_prcb_cpu_type": prcb.cpu_type,
        "offset_prcb_vendor_string": prcb.vendor_string,
        "offset_prcb_proc_state_context": prcb.context_frame,
        "offset_prcb_number": prcb.number,
        "size_ethread": thread.size,
        "size_pcr": prcb.size + PCR_PRCB,
        "offset_pcr_self_pcr": 0x18,
        "offset_pcr_current_prcb": 0x20,
        "offset_pcr_contained_prcb": PCR_PRCB,
        "offset_prcb_proc_state_special_reg": prcb.special_registers,
        "gdt_r0_code": 0x10,
        "gdt_r0_data": 0x18,
        "gdt_r3_code": 0x33,
        "gdt_r3_data": 0x2B,
        "gdt_tss": 0x40,
        "gdt64_r3_cm_code": 0x23,
        "gdt64_r3_cm_teb": 0x53,
        "offset_prcb_context": prcb.context or 0,
        "offset_kthread_stack_limit": thread.stack_limit,
        "offset_kthread_stack_base": thread.stack_base,
        "offset_kthread_queue_list_entry": thread.queue_list_entry,
        "offset_ethread_irp_list": thread.irp_list,
        "offset_prcb_idle_thread": 0x18,
        "offset_prcb_normal_dpc_state": prcb.normal_dpc_state,
        "offset_prcb_dpc_stack": prcb.dpc_stack,
        "offset_prcb_isr_stack": prcb.isr_stack,
        "size_kdpc_stack_frame": 0x50,
        "offset_kpri_queue_thread_list_head": 0x2A0,
        "offset_kthread_wait_reason": thread.wait_reason,
        "pte_base": pte_base,
        "retpoline_stub_function_table": symbols["RetpolineStubFunctionTable"],
        "retpoline_stub_function_table_size": 0x120,
        "retpoline_stub_size": 0x1000,
    }
    block = KDDEBUGGER_DATA64.encode(values, size=size)
    return DebuggerData(parse_kdbg(block), block if key is None else encode_block(block, key))
