"""What ran, on what hardware, and since when."""

from __future__ import annotations

from kdbridge.discovery.notes import try_read
from kdbridge.memory.files import DumpFile
from kdbridge.source import Source
from kdbridge.target import SharedData, Target
from kdbridge.words import PRODUCT_TYPES
from protocol.address import PAGE_SIZE
from protocol.arch import architecture_of

from .model import System, Times
from .reading import ReadOnce
from .smbios import PROCESSOR_BLOB, SMBIOS_BLOB, firmware_texts, registry_texts

__all__ = ["system_of", "times_of"]

_VENDOR_SIZE, _SHORTEST_VENDOR = 13, 4
"""CPUID's twelve letters and a NUL; of ARM64 something else lies there."""
_LARGEST_BLOB = 1 << 16
"""Bytes of a piece of secondary data that are looked at; tables of SMBIOS have a few thousand."""
_FASTEST = 100_000
"""MHz; more is no processor's."""
_BUILD = 0x0FFF_FFFF
"""The highest bits of NtBuildNumber say whether the build is free or checked."""


async def system_of(source: Source, target: Target) -> System:
    """As far as it is known: what is not is empty or None."""
    vendor, megahertz = await _processor(source, target)
    values = registry_texts(_secondary(source, PROCESSOR_BLOB))
    processor = [("processor", name) for name in (values.get("ProcessorNameString"),) if name]
    return System(
        windows=_windows(target),
        build_lab=target.build_lab,
        product=PRODUCT_TYPES.get(target.shared_data.product_type, "") if target.shared_data is not None else "",
        system_root=target.shared_data.system_root if target.shared_data is not None else "",
        processors=_processors(target),
        vendor=vendor or values.get("VendorIdentifier", ""),
        megahertz=megahertz,
        memory=None if target.runs is None else target.runs.page_count * PAGE_SIZE,
        firmware=(*firmware_texts(_secondary(source, SMBIOS_BLOB)), *processor),
    )


def times_of(target: Target) -> Times:
    """When it stopped, when it had started, how long it was up. What stands in KUSER_SHARED_DATA is at most 16 ms old.

    Up time is the interrupt time, which stands still while the machine sleeps: the start may have been before.
    """
    shared = target.shared_data
    if shared is None or not shared.system_time:
        return Times(None, None, None)
    boot = shared.system_time - shared.interrupt_time
    return Times(
        shared.system_time, boot if boot > 0 and shared.interrupt_time else None, shared.interrupt_time or None
    )


def _windows(target: Target) -> str:
    """ "Windows 10.0 build 19041 free x64"; a small dump does not tell the version before the build."""
    shared = target.shared_data
    version = _nt_version(shared) if shared is not None else ""
    build = target.version.build or (shared.nt_build_number & _BUILD if shared is not None else 0)
    architecture = architecture_of(target.version.machine_type)
    kind = "checked" if target.version.checked else "free"
    name = architecture.name if architecture is not None else f"machine {target.version.machine_type:#x}"
    return " ".join(part for part in ("Windows", version, f"build {build}", kind, name) if part)


def _nt_version(shared: SharedData) -> str:
    return f"{shared.nt_major_version}.{shared.nt_minor_version}" if shared.nt_major_version else ""


def _processors(target: Target) -> int:
    told = target.shared_data.active_processor_count if target.shared_data is not None else 0
    return len(target.processors) or told


async def _processor(source: Source, target: Target) -> tuple[str, int | None]:
    """Vendor and MHz, of the first processor whose KPRCB can be read."""
    block = target.kdbg.block if target.kdbg is not None else None
    vendor, megahertz = "", None
    for processor in target.processors if block is not None else ():
        if processor.prcb is None or block is None:
            continue
        if not vendor and block["offset_prcb_vendor_string"]:
            data = await try_read(source, processor.prcb + block["offset_prcb_vendor_string"], _VENDOR_SIZE)
            text = (data or b"").split(b"\0")[0].decode("ascii", "replace")
            vendor = text if len(text) >= _SHORTEST_VENDOR and text.isascii() and text.isprintable() else ""
        if not megahertz and block["offset_prcb_mhz"]:
            data = await try_read(source, processor.prcb + block["offset_prcb_mhz"], 4)
            value = int.from_bytes(data or b"", "little")
            megahertz = value if 0 < value < _FASTEST else None
        if vendor and megahertz:
            break
    return vendor, megahertz


def _secondary(source: Source, tag: str) -> bytes:
    """What Windows itself put into a dump under this tag."""
    real = source.source if isinstance(source, ReadOnce) else source
    return (real.secondary_data(tag, _LARGEST_BLOB) or b"") if isinstance(real, DumpFile) else b""
