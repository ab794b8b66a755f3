"""kdbridge memory: a hex dump, or raw bytes into a file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click
import trio

from kdbridge.discovery import find_memory_runs
from kdbridge.errors import FileError, MemoryFault, TargetRefusedError, UsageError
from kdbridge.opening import OpenTarget
from kdbridge.progress import Meter
from kdbridge.source import PhysicalMemory, Source, VirtualMemory
from protocol.address import PAGE_SHIFT, PAGE_SIZE, PageRun, PageRuns, format_address, parse_address
from protocol.errors import LayoutError

from .bar import shown_progress
from .output import json_option, print_json, tell
from .run import open_source, record_option, run, say, wait_option
from .words import hex_lines

__all__ = ["memory_command"]

_LARGEST = 1 << 30


def _number(text: str, what: str) -> int:
    try:
        return parse_address(text)
    except LayoutError as error:
        raise UsageError(f"{what}: {error.problem}") from None


async def _read(memory: VirtualMemory | PhysicalMemory, address: int, length: int) -> tuple[bytearray, bytearray]:
    """All bytes, page by page, and for each of them 1 where it could be read."""
    data, readable = bytearray(), bytearray()
    with shown_progress() as progress:
        meter = Meter(progress, "reading", length)
        while len(data) < length:
            at = address + len(data)
            part = min(length - len(data), PAGE_SIZE - (at & PAGE_SIZE - 1))
            try:
                data += await memory.read(at, part)  # type: ignore[arg-type]
                readable += b"\1" * part
            except MemoryFault:
                data += bytes(part)
                readable += bytes(part)
                meter.unreadable += 1
            meter.done = len(data)
            meter.tell(trio.current_time())
            await trio.lowlevel.checkpoint()
    return data, readable


def _write(output: Path, data: bytes | bytearray) -> None:
    """Into a new file, whole or not at all."""
    try:
        with output.open("xb") as file:
            try:
                file.write(data)
                file.flush()
            except OSError:
                with suppress(OSError):
                    output.unlink()
                raise
    except FileExistsError:
        raise FileError(f"{output} exists already; nothing was overwritten") from None
    except OSError as error:
        raise FileError(f"{output} cannot be written: {error.strerror or error}") from None


async def _make_sure_of_ram(source: Source, start: int, count: int) -> None:
    runs = await find_memory_runs(source)
    first, end = start >> PAGE_SHIFT, start + count + PAGE_SIZE - 1 >> PAGE_SHIFT
    if runs is None or not PageRuns([PageRun(first, end - first)]) - runs:
        return
    raise UsageError(
        f"the {count:#x} bytes at {format_address(start)} are not all RAM ({source.name} says where that is, in "
        "kdbridge info): a device may be there, and reading a device can change it; --device reads it all the same"
    )


async def _memory(source: Source, physical: bool) -> VirtualMemory | PhysicalMemory:
    if not physical:
        return source.virtual
    if isinstance(source, OpenTarget):
        await source.live.probe_physical()
    if source.physical is None:
        raise TargetRefusedError(
            f"{source.name} refuses physical reads; virtual addresses can be read", api="ReadPhysicalMemory", status=0
        )
    return source.physical


@click.command("memory", short_help="Show memory as a hex dump, or write it to a file.")
@click.argument("source", metavar="TARGET|DUMP|SNAPSHOT")
@click.argument("address")
@click.argument("length")
@click.option("--physical", is_flag=True, help="ADDRESS is a physical one.")
@click.option("--device", is_flag=True, help="With --physical: read even where no RAM is.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the raw bytes to this new file.")
@wait_option
@record_option
@json_option
def memory_command(
    source: str,
    address: str,
    length: str,
    physical: bool,
    device: bool,
    output: Path | None,
    wait: float,
    as_json: bool,
) -> int:
    """Show LENGTH bytes at ADDRESS, both hexadecimal as in WinDbg (fffff804`7c62a390; 0n4096 for decimal).

    Bytes that cannot be read are shown as ??, and the exit code is 1. Of a target's physical memory only RAM is read.
    """
    start, count = _number(address, "ADDRESS"), _number(length, "LENGTH")
    if not 0 < count <= _LARGEST or start + count > 1 << 64:
        raise UsageError(f"LENGTH {length}: from 1 byte to 1 GiB, and not beyond the end of memory")

    if output is not None and output.exists():
        raise FileError(f"{output} exists already; nothing was overwritten")

    async def main() -> int:
        async with open_source(source, wait) as opened:
            if physical and not device and isinstance(opened, OpenTarget):
                await _make_sure_of_ram(opened, start, count)
            data, readable = await _read(await _memory(opened, physical), start, count)
        bad = readable.count(0)
        if output is not None:
            whole = data[: readable.index(0)] if bad else data
            _write(output, whole)
            say(f"{len(whole)} bytes written to {output}")
            if as_json:
                print_json({"address": hex(start), "path": str(output), "written": hex(len(whole)),
                            "unreadable": _spans(start, readable)})  # fmt: skip
        elif as_json:
            print_json({"address": hex(start), "bytes": data.hex(), "unreadable": _spans(start, readable)})
        else:
            for line in hex_lines(start, data, readable):
                tell(line)
        if bad:
            first = start + readable.index(0)
            say(f"{bad} of {count} bytes cannot be read, the first at {format_address(first)}")
        return 1 if bad else 0

    return run(main)


def _spans(start: int, readable: bytearray) -> list[list[str]]:
    """[address, size] of what could not be read."""
    spans: list[list[str]] = []
    at = readable.find(0)
    while at >= 0:
        end = readable.find(1, at)
        end = len(readable) if end < 0 else end
        spans.append([hex(start + at), hex(end - at)])
        at = readable.find(0, end)
    return spans
