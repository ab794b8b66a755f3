"""How values are written for people, wherever they are shown: sizes, durations, times, registers, hex dumps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from protocol.address import format_address
from protocol.arch import Architecture
from protocol.structure import Structure, StructureLayout

__all__ = [
    "PRODUCT_TYPES",
    "break_status_words",
    "duration",
    "file_time",
    "harmless",
    "hex_lines",
    "moment_of",
    "register_lines",
    "size",
]

PRODUCT_TYPES = {1: "workstation", 2: "domain controller", 3: "server"}
"""NT_PRODUCT_TYPE (kd-protocol 7.5)."""

_BREAK_STATUS = {
    1: "a break-in", 2: "the SysRq key", 3: "a bug check, before its blue screen", 4: "a bug check, at its end",
    5: "a fatal error", 6: "a debug control call", 7: "the debugger's worker",
}  # fmt: skip

_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)


def break_status_words(status: int) -> str:
    """What stopped a machine, by the number it gave DbgBreakPointWithStatus: "a break-in"."""
    return _BREAK_STATUS.get(status, f"break status {status}")


def harmless(text: str, kept: str = "") -> str:
    """The text without what a terminal would obey: control characters and the like, but those `kept`, become dots."""
    return "".join(c if c.isprintable() or c in kept else "." for c in text)


def size(count: int | None) -> str:
    """Bytes, as people say them."""
    if count is None:
        return "?"
    value, unit = float(count), "bytes"
    for name in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, name
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """A time span in its two largest units."""
    if seconds is None or seconds > 10 * 365 * 86400:
        return "a very long time"
    whole = round(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((at for at, (value, _) in enumerate(parts) if value), 3)
    return " ".join(f"{value} {unit}" for value, unit in parts[first : first + 2] if value or first == 3)


def moment_of(file_time: int) -> datetime | None:
    """A FILETIME as a moment, in UTC; None where it is beyond the calendar."""
    try:
        return _EPOCH + timedelta(microseconds=file_time // 10)
    except OverflowError:
        return None


def file_time(value: int) -> str:
    """A FILETIME in UTC."""
    moment = moment_of(value)
    return f"{value:#x} (no time)" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def register_lines(
    context: Structure, special: Structure | None, architecture: Architecture, known: Collection[str] | None = None
) -> Iterator[str]:
    """Registers in WinDbg's order. Where `known` is given, those that are not in it are shown as question marks."""
    shown = architecture.display_names

    def cell(layout: StructureLayout, values: Structure, name: str) -> str:
        width = 2 * layout.size_of(name)
        text = f"{values[name]:0{width}x}" if known is None or name in known else "?" * width
        return f"{shown.get(name, name):>3}={text}"

    for row in architecture.display:
        yield " ".join(cell(architecture.context, context, name) for name in row)
    if special is not None:
        for row in architecture.display_special:
            yield " ".join(cell(architecture.special_registers, special, name) for name in row)


def hex_lines(address: int, data: bytes | bytearray, readable: Sequence[int]) -> Iterator[str]:
    """A hex dump as WinDbg's `db`; what cannot be read (0 in `readable`) is ??."""
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        marks = readable[at : at + 16]
        cells = [f"{byte:02x}" if good else "??" for byte, good in zip(row, marks, strict=True)]
        cells += ["  "] * (16 - len(cells))
        pairs = zip(row, marks, strict=True)
        text = "".join(chr(byte) if good and 32 <= byte < 127 else "." if good else "?" for byte, good in pairs)
        yield f"{format_address(address + at)}  {' '.join(cells[:8])}-{' '.join(cells[8:])}  {text}"
