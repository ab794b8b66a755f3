"""kdbridge registers: of one processor, or of all."""

from __future__ import annotations

import click

from kdbridge.errors import TargetRefusedError, UsageError
from kdbridge.file_facts import told_by_file
from protocol.arch import architecture_of

from .output import json_option, print_json, tell
from .run import known, open_source, record_option, run, wait_option
from .words import nearest, register_lines

__all__ = ["registers_command"]


@click.command("registers", short_help="Registers of one processor, or of all.")
@click.argument("source", metavar="TARGET|DUMP|SNAPSHOT")
@click.option("--processor", "-p", type=int, metavar="N", help="Of this processor (default: the one that stopped).")
@click.option("--all", "all_processors", is_flag=True, help="Of every processor.")
@wait_option
@record_option
@json_option
def registers_command(source: str, processor: int | None, all_processors: bool, wait: float, as_json: bool) -> int:
    """Registers of a target, a dump file or a Snapshot, in WinDbg's order. A target is only read from."""
    if processor is not None and all_processors:
        raise UsageError("--processor and --all exclude each other")

    async def main() -> int:
        async with open_source(source, wait) as opened:
            target = await known(opened)
            told = told_by_file(opened)
            repeated = None if told is None else told.context
        architecture = architecture_of(target.version.machine_type)
        if architecture is None:
            raise TargetRefusedError("this architecture's registers are not known here", api="", status=0)
        counter = architecture.program_counter
        place = target.stop.program_counter if target.stop is not None else None
        stopped = next((p.number for p in target.processors if p.context and p.context[counter] == place), None)
        wanted = (stopped or 0) if processor is None else processor
        chosen = [p for p in target.processors if all_processors or p.number == wanted]
        if not chosen:
            raise UsageError(f"there is no processor {wanted}; this machine has {len(target.processors)}, from 0 on")
        if as_json:
            print_json(
                [
                    {
                        "processor": p.number,
                        "context": {n: hex(v) for n, v in p.context.values.items()} if p.context else None,
                        "special_registers": (
                            {n: hex(v) for n, v in p.special_registers.values.items()} if p.special_registers else None
                        ),
                    }
                    for p in chosen
                ]
            )
        for p in chosen if not as_json else ():
            tell(f"processor {p.number}" + (" (stopped the machine)" if p.number == stopped else ""))
            if p.context is None:
                tell("  the target gives no registers of it")
                continue
            if repeated is p.context:
                tell("  as the file's header has them, which may be another's: memory has none")
            for line in register_lines(p.context, p.special_registers, architecture):
                tell(line)
            tell(nearest(target, p.context[counter]) or "(in no module)")
        return 0 if all(p.context is not None for p in chosen) else 1

    return run(main)
