"""kdbridge simulate: a machine at the other end of the line, by the name of a situation, or out of a dump file."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from kdbridge.errors import FileError, TransportOpenError, UsageError
from kdbridge.positioned import read_at
from kdbridge.transports.sim import parse_size
from simulator.errors import SimulationError
from simulator.faults import parse_line_faults
from simulator.from_file import machine_of_dump, machine_of_raw
from simulator.net import parse_faults
from simulator.options import LAYOUTS, Layout
from simulator.scenarios import SCENARIOS, ScenarioOptions, start
from simulator.serve import run as serve_target
from simulator.serve_net import parse_net, run_net
from simulator.target import KdTarget

from .output import tell
from .run import Interrupted, run, say

__all__ = ["simulate_command"]

_Begin = Callable[[KdTarget], None]
_Serve = Callable[[KdTarget, _Begin | None], Awaitable[None]]
_LIST = "\n".join(f"  {scenario.name:18} {scenario.text}" for scenario in SCENARIOS.values())


@click.command("simulate", short_help="Be a machine that a debugger can take over.", epilog=f"\b\nScenarios:\n{_LIST}")
@click.argument("what", default="bugcheck", metavar="[SCENARIO|DUMP|RAW]")
@click.option(
    "--on", "where", required=True, metavar="LINE",
    help="pty: (or pty:PATH for a link to it), tcp:HOST:PORT, unix:PATH, net:HOST:PORT,key=w.x.y.z[,version=2|4|5]",
)  # fmt: skip
@click.option("--processors", type=click.IntRange(1, 256), metavar="N", help="How many processors it has.")
@click.option(
    "--memory", "memory", metavar="SIZE", help="How much memory it has: 256M, 64G. What is not filled costs nothing."
)
@click.option("--content", metavar="SIZE", help="How much of it is filled with data that is not zero: 200M.")
@click.option(
    "--layout", type=click.Choice(LAYOUTS),
    help="A server has sessions, many processes and threads, a PFN database, KVA shadow: what kernel and active dumps "
    "are about.  [default: desktop]",
)  # fmt: skip
@click.option(
    "--baud", type=click.IntRange(min=50), metavar="N", help="Speed of the line; default: as fast as it goes."
)
@click.option("--seed", type=int, default=1, show_default=True, help="One seed is one machine, to the last byte.")
@click.option(
    "--fault", metavar="FAULTS",
    help="What a serial line does to what is on it: flip=1e-5,drop=0.01,seed=7 and many more; a network to datagrams, "
    "each way: loss=0.05,dup=0.05,reorder=0.1,delay=0.02,jitter=0.02,seed=7.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="End when the first debugger hangs up.")
def simulate_command(
    what: str, where: str, processors: int | None, memory: str | None, content: str | None,
    layout: Layout | None, baud: int | None, seed: int, fault: str | None, once: bool,
) -> int:  # fmt: skip
    """Be a machine that a debugger can take over: kdbridge, or WinDbg itself.

    Ends with Ctrl-C.
    """
    options = ScenarioOptions(
        processors=processors,
        memory_size=parse_size(memory) if memory else None,
        content_size=parse_size(content) if content else None,
        seed=seed,
        layout=layout or LAYOUTS[0],
    )
    file: int | None = None
    begin: _Begin | None = None
    try:
        serve = _checked_line(where, fault, baud, once)
        if what in SCENARIOS:
            running = start(what, options)
            target: KdTarget = running.target
            begin = running.scenario.begin
            text = running.scenario.text
        else:
            if processors or memory or content or layout:
                raise UsageError("--processors, --memory, --content and --layout are for scenarios, not for files")
            target, text, file = _of_file(Path(what))

        async def main() -> int:
            say(f"{text}; Ctrl-C ends it")
            await serve(target, begin)
            return 0

        return run(main)
    except SimulationError as error:
        if isinstance(error.__cause__, OSError):
            raise TransportOpenError(str(error)) from None
        raise UsageError(str(error)) from None
    except Interrupted:
        return 0
    finally:
        if file is not None:
            os.close(file)


def _checked_line(where: str, fault: str | None, baud: int | None, once: bool) -> _Serve:
    """What puts a target there. Raises SimulationError, UsageError."""
    if not where.startswith("net:"):
        line_faults = parse_line_faults(fault) if fault else None
        return lambda target, begin: serve_target(target, where, baud, tell, once=once, faults=line_faults)
    if baud is not None or once:
        raise UsageError("a network has no --baud, and nobody hangs up there (--once)")
    line, faults = parse_net(where, os.environ), parse_faults(fault) if fault else None
    return lambda target, begin: run_net(target, line, tell, begin=begin, faults=faults)


def _of_file(path: Path) -> tuple[KdTarget, str, int]:
    if not path.exists():
        names = ", ".join(SCENARIOS)
        raise UsageError(f"{path} is neither a file nor a scenario; scenarios are {names}")
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from None

    def read(offset: int, size: int) -> bytes:
        return read_at(fd, size, offset)

    try:
        size = os.fstat(fd).st_size
        made = machine_of_dump(read, size) if read(0, 4) == b"PAGE" else machine_of_raw(read, size)
    except OSError as error:
        os.close(fd)
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from None
    except SimulationError as error:
        os.close(fd)
        raise FileError(f"{path}: {error}") from None
    return made.target, made.text, fd
