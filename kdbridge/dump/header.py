"""What every dump's header says, of whatever kind it is: from what the target said of itself."""

from __future__ import annotations

from kdbridge.target import Target
from protocol.arch import Architecture
from protocol.dumpfile.exception import ExceptionRecord
from protocol.dumpfile.header import DumpHeader
from protocol.dumpfile.header_layout import COMMENT_SIZE
from protocol.ntstatus import STATUS_BREAKPOINT

__all__ = ["comment_of", "context_record", "header_of"]


def header_of(target: Target, architecture: Architecture, comment: str, attributes: int = 0) -> DumpHeader:
    """Every field from what the target said; what it did not say stays unset."""
    block = target.kdbg.block if target.kdbg is not None else None
    stop = target.stop
    shared = target.shared_data
    place = stop.program_counter if stop is not None else 0
    code = stop.exception_code if stop is not None and stop.exception_code else STATUS_BREAKPOINT
    return DumpHeader(
        bits=64 if architecture.pointer_size == 8 else 32,
        major_version=target.version.major_version,
        minor_version=target.version.minor_version,
        directory_table_base=(target.directory_table_base or 0) & architecture.paging.root_mask,
        pfn_database=block["mm_pfn_database"] if block is not None else 0,
        ps_loaded_module_list=target.version.ps_loaded_module_list,
        ps_active_process_head=block["ps_active_process_head"] if block is not None else 0,
        machine_image_type=target.version.machine_type,
        number_processors=max(len(target.processors), 1),
        bug_check_code=target.bug_check_code or 0,
        bug_check_parameters=target.bug_check_parameters,
        kd_debugger_data_block=target.kdbg.address if target.kdbg is not None else 0,
        context_record=context_record(target, architecture),
        exception=ExceptionRecord(code, 1, 0, place).encode(64 if architecture.pointer_size == 8 else 32),
        system_time=shared.system_time if shared is not None else None,
        system_up_time=shared.interrupt_time if shared is not None else None,
        comment=comment,
        product_type=shared.product_type if shared is not None else None,
        suite_mask=shared.suite_mask if shared is not None else None,
        writer_status=0 if target.modules else 1,
        kd_secondary_version=0,
        attributes=attributes,
    )


def context_record(target: Target, architecture: Architecture) -> bytes:
    """The stopped processor's registers. kdmp-parser refuses a file whose two copies of MXCSR differ."""
    place = target.stop.program_counter if target.stop is not None else None
    contexts = [processor.context for processor in target.processors if processor.context is not None]
    chosen = next((c for c in contexts if c[architecture.program_counter] == place), contexts[0] if contexts else None)
    if chosen is None:
        return b""
    raw = chosen.raw[: architecture.context.size]
    if chosen.has("mx_csr2"):
        raw = architecture.context.encode({"mx_csr2": chosen["mx_csr"]}, raw)
    return raw


def comment_of(target: Target, comment: str, lacking: str) -> str:
    """The user's words, or whose work it is; before them what is missing."""
    text = comment or "kdbridge" + (": KDBG decoded by kdbridge" if target.kdbg and target.kdbg.encoded else "")
    text = text.encode("ascii", "replace").decode("ascii").replace("\0", "?")
    if lacking:
        # What is missing has to be read first, however long the user's own words are.
        text = f"{lacking}; {text}"
    return text[: COMMENT_SIZE - 1]
