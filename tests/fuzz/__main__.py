"""python -m tests.fuzz --count 1000000 [--seed N] [--only NAME]: as many hostile inputs as wanted, from any seed.

Prints the seed and what each target came to; ends with 1 at a finding, whose input is saved. With --first N --count 1
an input is made again by its number, with --replay FILE a saved one is run again.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from tests.fuzz.driver import Result, fuzz, replay
from tests.fuzz.targets import TARGETS, counts

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="inputs in all (default 100000)")
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--only", action="append", choices=list(TARGETS), metavar="NAME", help=", ".join(TARGETS))
    parser.add_argument("--first", type=int, default=0, help="number of the first input (default 0)")
    parser.add_argument("--save", type=Path, default=Path("out/fuzz"), help="folder for findings (default out/fuzz)")
    parser.add_argument("--replay", type=Path, help="run one saved input; its target is the one named by --only")
    asked = parser.parse_args(arguments)
    chosen = [TARGETS[name] for name in asked.only or TARGETS]
    if asked.replay is not None:
        if len(chosen) != 1:
            parser.error("--replay needs one --only")
        problem = replay(chosen[0], asked.replay.read_bytes())
        _say(problem or "nothing is wrong with it")
        return 1 if problem else 0
    seed = random.SystemRandom().randrange(1 << 32) if asked.seed is None else asked.seed
    _say(f"seed {seed}")
    results: list[Result] = []
    for target in chosen:
        count = counts(asked.count, chosen)[target.name]
        result = fuzz(target, count, seed, first=asked.first, progress=_progress if sys.stderr.isatty() else None)
        results.append(result)
        _say(_line(result))
        for finding in result.findings:
            asked.save.mkdir(parents=True, exist_ok=True)
            path = asked.save / f"{target.name}-{seed}-{finding.number}"
            path.write_bytes(finding.data)
            _say(f"FOUND {finding}")
            _say(f"again: python -m tests.fuzz --only {target.name} --replay {path}")
            _say(f"   or: python -m tests.fuzz --only {target.name} --seed {seed} --first {finding.number} --count 1")
    total, seconds = sum(result.count for result in results), sum(result.seconds for result in results)
    found = sum(len(result.findings) for result in results)
    _say(f"{total:,} inputs in {seconds:.0f} s, {total / max(seconds, 1e-9):,.0f} a second; findings: {found}")
    return 1 if found else 0


def _line(result: Result) -> str:
    speed = result.count / max(result.seconds, 1e-9)
    return (
        f"{result.target:<18} {result.count:>9,} inputs  {result.taken:>9,} taken  {speed:>7,.0f}/s"
        f"  slowest {result.slowest:.2f} s  largest {result.largest >> 10:,} KiB  findings {len(result.findings)}"
    )


def _progress(result: Result) -> None:
    sys.stderr.write(f"\r{_line(result)}\r")
    sys.stderr.flush()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
