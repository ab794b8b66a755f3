"""python -m tests.torture [--minutes M] [--seed N] [--only NAME]: bad lines and worse, drawn by seed, until time is up.

Prints each seed before its round; ends with 1 at a finding. `--only NAME --seed N --count 1` makes a round again.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.torture.rounds import ROUNDS

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default 1)")
    parser.add_argument("--count", type=int, default=0, help="how many rounds, however long it takes")
    parser.add_argument("--seed", type=int, default=None, help="of the first round; default: drawn")
    parser.add_argument("--only", action="append", choices=list(ROUNDS), metavar="NAME", help=", ".join(ROUNDS))
    asked = parser.parse_args(arguments)
    names = asked.only or [name for name, one in ROUNDS.items() if one.drawn]
    seed = random.SystemRandom().randrange(1 << 32) if asked.seed is None else asked.seed
    began = time.monotonic()
    done: Counter[str] = Counter()
    told: Counter[str] = Counter()
    findings: list[str] = []
    while sum(done.values()) < asked.count if asked.count else time.monotonic() < began + 60 * asked.minutes:
        name = random.Random(f"which {seed}").choice(names)
        _say(f"{name} --seed {seed} ", end="")
        faulthandler.dump_traceback_later(ROUNDS[name].longest, exit=True)
        outcome = _outcome(name, seed)
        faulthandler.cancel_dump_traceback_later()
        done[name] += 1
        told[f"{name}: {outcome.partition(':')[0]}"] += 1
        _say(outcome)
        if outcome.startswith("FOUND"):
            findings.append(f"python -m tests.torture --only {name} --seed {seed} --count 1")
        seed = seed + 1 & 0xFFFFFFFF
    for text, count in sorted(told.items()):
        _say(f"{count:>7,}  {text}")
    rounds, seconds = sum(done.values()), time.monotonic() - began
    _say(f"{rounds:,} rounds in {seconds:.0f} s; findings: {len(findings)}")
    for again in findings:
        _say(f"again: {again}")
    return 1 if findings else 0


def _outcome(name: str, seed: int) -> str:
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        try:
            return ROUNDS[name].play(seed, Path(folder))
        except Exception:
            return f"FOUND: {traceback.format_exc()}"


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
