"""python -m simulator: a machine by the name of its situation, put on a line for any debugger."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import trio

from .errors import SimulationError
from .faults import parse_line_faults
from .net import parse_faults
from .options import LAYOUTS
from .scenarios import SCENARIOS, ScenarioOptions, start
from .serve import run
from .serve_net import parse_net, run_net

__all__ = ["main"]

_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def _size(text: str) -> int:
    unit = text[-1:].upper() if text[-1:].upper() in _UNITS else ""
    digits = text[: len(text) - len(unit)]
    if not digits.isascii() or not digits.isdigit() or len(digits) > 15:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 4096, 64K, 256M or 1G")
    return int(digits) << _UNITS.get(unit, 0)


def _baud(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 50:
        raise argparse.ArgumentTypeError(f"{text!r} is not a speed; write 115200")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    scenarios = "\n".join(f"  {scenario.name:18} {scenario.text}" for scenario in SCENARIOS.values())
    parser = argparse.ArgumentParser(
        prog="python -m simulator",
        description="Be a machine that a debugger can take over. Ends with Ctrl-C.",
        epilog=f"scenarios:\n{scenarios}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", metavar="SCENARIO", nargs="?", default="bugcheck", choices=list(SCENARIOS))
    parser.add_argument(
        "--on",
        required=True,
        metavar="LINE",
        help="pty: (or pty:PATH for a link to it), tcp:HOST:PORT, unix:PATH, net:HOST:PORT,key=w.x.y.z[,version=2|4|5]",
    )
    parser.add_argument("--processors", type=int, metavar="N")
    parser.add_argument("--memory", type=_size, metavar="SIZE", help="such as 256M or 64G")
    parser.add_argument("--content", type=_size, metavar="SIZE", help="how much of it is filled with data")
    parser.add_argument("--layout", choices=LAYOUTS, default="desktop", help="a server has sessions, a PFN database, …")
    parser.add_argument("--baud", type=_baud, metavar="N", help="speed of the line; default: as fast as it goes")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="one seed is one machine (default: 1)")
    parser.add_argument(
        "--fault",
        metavar="FAULTS",
        help="what a serial line does: flip=1e-5,drop=0.01,seed=7 and more (docs/simulator.md); "
        "a network: loss=0.05,dup=0.05,reorder=0.1,delay=0.02,jitter=0.02,seed=7",
    )
    parser.add_argument("--once", action="store_true", help="end when the first debugger hangs up")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the machine, print the URL of its line as the first line of output, and serve it. Gives an exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    options = ScenarioOptions(
        processors=asked.processors,
        memory_size=asked.memory,
        seed=asked.seed,
        content_size=asked.content,
        layout=asked.layout,
    )

    def tell(url: str) -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()

    async def serve_it() -> None:
        if asked.on.startswith("net:"):
            if asked.baud is not None or asked.once:
                raise SimulationError("a network has no --baud, and nobody hangs up there (--once)")
            line, faults = parse_net(asked.on, os.environ), parse_faults(asked.fault) if asked.fault else None
            running = start(asked.scenario, options)
            await run_net(running.target, line, tell, begin=running.scenario.begin, faults=faults)
            return
        line_faults = parse_line_faults(asked.fault) if asked.fault else None
        target = start(asked.scenario, options).target
        await run(target, asked.on, asked.baud, tell, once=asked.once, faults=line_faults)

    try:
        trio.run(serve_it)
    except SimulationError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
