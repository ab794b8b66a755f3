"""kdbridge verify: is a dump whole, does it hold what a debugger needs, is every page what was read?"""

from __future__ import annotations

from pathlib import Path

import click

from kdbridge.dump import verify
from kdbridge.errors import FileError
from kdbridge.memory.files import DumpFile, RawImage
from kdbridge.snapshot import Snapshot

from .bar import shown_progress
from .output import json_option, print_json, tell
from .run import run

__all__ = ["verify_command"]

_LISTED = 64
"""How many frames `verify` names at most."""


@click.command("verify", short_help="Is a dump whole, and is every page what was read?")
@click.argument("dump", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="SNAPSHOT|DUMP|RAW",
    help="Compare all of its memory with this Snapshot, dump or raw image.",
)
@json_option
def verify_command(dump: Path, against: Path | None, as_json: bool) -> int:
    """Check DUMP: structure, sizes, bitmap, contexts; and all its memory with --against. Exit code 1: it is flawed."""

    if dump.is_dir():
        raise FileError(f"{dump} is a folder; verify checks a dump file (`kdbridge convert` makes one of a Snapshot)")

    async def main() -> int:
        with DumpFile(dump) as opened, shown_progress() as progress:
            pieces = None if opened.small is None else len(opened.small.layout.blocks)
            if against is None:
                checked = await verify(opened, None, progress)
            else:
                with _witness(against) as witness:
                    checked = await verify(opened, witness, progress)
        if as_json:
            print_json(
                {"good": checked.good, "dump_type": checked.dump_type.value, "pages": checked.pages,
                 "pieces": pieces, "compared": checked.compared,
                 "compared_bytes": checked.compared_bytes, "differing": [hex(pfn) for pfn in checked.differing],
                 "overlaid": checked.overlaid, "problems": list(checked.problems)}
            )  # fmt: skip
            return 0 if checked.good else 1
        amount = f"{checked.pages} pages" if pieces is None else f"{pieces} pieces"
        tell(f"{dump}: type {checked.dump_type.value} ({checked.dump_type.name}), {amount}")
        for note in checked.notes:
            tell(f"  {note}")
        if checked.overlaid:
            tell(f"  {checked.overlaid} pages differ where registers or a decoded KDBG were laid over them")
        for problem in checked.problems:
            tell(f"  PROBLEM {problem}")
        for pfn in checked.differing:
            tell(f"  PROBLEM frame {pfn:#x} differs")
        if len(checked.differing) >= _LISTED:
            tell(f"  PROBLEM only the first {_LISTED} frames that differ are listed; there may be more")
        tell("good" if checked.good else "not good")
        return 0 if checked.good else 1

    return run(main)


def _witness(path: Path) -> Snapshot | DumpFile | RawImage:
    if path.is_dir():
        return Snapshot.open(path)
    with RawImage(path) as image:
        start = (image.page(0) or b"")[:4]
    return DumpFile(path) if start == b"PAGE" else RawImage(path)
