"""kdbridge memory: a hex dump, or raw bytes into a file."""

from __future__ import annotations

from pathlib import Path

import click

from kdbridge.errors import FileError, MemoryFault, TargetRefusedError, UsageError
from kdbridge.opening import OpenTarget
from kdbridge.source import PhysicalMemory, Source, VirtualMemory
from protocol.address import PAGE_SIZE, format_address, parse_address
from protocol.errors import LayoutError

from .output import json_option, print_json
from .run import open_source, run, say, wait_option
from .words import hex_lines

__all__ = ["memory_command"]

_LARGEST = 1 << 30


def _number(text: str, what: str) -> int:
    try:
        return parse_address(text)
    except LayoutError as error:
        raise UsageError(f"{what}: {error.problem}") from None


async def _read(memory: VirtualMemory | PhysicalMemory, address: int, length: int) -> tuple[bytes, list[bool]]:
    """All bytes, page by page, and which of them could be read."""
    data = bytearray()
    readable: list[bool] = []
    while len(data) < length:
        at = address + len(data)
        part = min(length - len(data), PAGE_SIZE - (at & PAGE_SIZE - 1))
        try:
            got = await memory.read(at, part)  # type: ignore[arg-type]
            data += got
            readable += [True] * part
        except MemoryFault:
            data += bytes(part)
            readable += [False] * part
    return bytes(data), readable


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


@click.command("memory")
@click.argument("source")
@click.argument("address")
@click.argument("length")
@click.option("--physical", is_flag=True, help="ADDRESS is a physical one.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the raw bytes to this new file.")
@wait_option
@json_option
def memory_command(
    source: str, address: str, length: str, physical: bool, output: Path | None, wait: float, as_json: bool
) -> int:
    """Show LENGTH bytes at ADDRESS, both hexadecimal as in WinDbg (fffff804`7c62a390; 0n4096 for decimal).

    Bytes that cannot be read are shown as ??, and the exit code is 1.
    """
    start, count = _number(address, "ADDRESS"), _number(length, "LENGTH")
    if not 0 < count <= _LARGEST or start + count > 1 << 64:
        raise UsageError(f"LENGTH {length}: from 1 byte to 1 GiB, and not beyond the end of memory")

    async def main() -> int:
        async with open_source(source, wait) as opened:
            data, readable = await _read(await _memory(opened, physical), start, count)
        bad = readable.count(False)
        if output is not None:
            whole = data[: readable.index(False)] if bad else data
            try:
                with output.open("xb") as file:
                    file.write(whole)
            except FileExistsError:
                raise FileError(f"{output} exists already; nothing was overwritten") from None
            except OSError as error:
                raise FileError(f"{output} cannot be written: {error.strerror or error}") from None
            say(f"{len(whole)} bytes written to {output}")
        elif as_json:
            print_json({"address": hex(start), "bytes": data.hex(), "unreadable": _spans(start, readable)})
        else:
            for line in hex_lines(start, data, readable):
                click.echo(line)
        if bad:
            first = start + readable.index(False)
            say(f"{bad} of {count} bytes cannot be read, the first at {format_address(first)}")
        return 1 if bad else 0

    return run(main)


def _spans(start: int, readable: list[bool]) -> list[list[str]]:
    """[address, size] of what could not be read."""
    spans: list[list[int]] = []
    for at, good in enumerate(readable):
        if good:
            continue
        if spans and spans[-1][0] + spans[-1][1] == start + at:
            spans[-1][1] += 1
        else:
            spans.append([start + at, 1])
    return [[hex(at), hex(size)] for at, size in spans]
