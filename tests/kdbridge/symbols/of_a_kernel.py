"""Symbol files of simulated kernels: theirs by GUID and age, with the structures that a test puts into them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

from simulator.kernel import SimulatedKernel
from tests.protocol.pdb import built

__all__ = ["Offsets", "put_symbol_file", "structures_of"]

Offsets = Mapping[str, Mapping[str, int]]
"""By structure: where each of its fields lies."""


def structures_of(kernel: SimulatedKernel) -> Offsets:
    """As the simulator laid its kernel's structures out."""
    process, thread = kernel.profile.eprocess, kernel.profile.kthread
    return {
        "_EPROCESS": {
            "ActiveProcessLinks": process.active_process_links,
            "ThreadListHead": process.threads_of_process,
            "ImageFileName": process.image_file_name,
            "InheritedFromUniqueProcessId": process.parent_cid,
        },
        "_ETHREAD": {"Cid": thread.client_id, "ThreadListEntry": thread.process_list_entry},
        "_KPROCESS": {"ThreadListHead": process.thread_list_head},
        "_KTHREAD": {
            "ThreadListEntry": thread.thread_list_entry,
            "Process": thread.process,
            "State": thread.state,
            "WaitReason": thread.wait_reason,
        },
    }


def put_symbol_file(folder: Path, said: tuple[str, str, int], offsets: Offsets) -> None:
    """`said` is what the image says of its symbol file: name, GUID, age."""
    name, guid, age = said
    info = built.info_stream(uuid.UUID(guid).bytes_le, age)
    streams = [b"", info, built.types_stream(built.structures(offsets)), built.dbi_stream(6, {5: 5}, age=age)]
    sections = built.section_header(".text", 0x1000, 0x1000)
    (folder / name).write_bytes(built.msf_file([*streams, b"", sections, built.public("KiNothing", 1, 0)]))
