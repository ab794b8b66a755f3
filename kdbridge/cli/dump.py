"""kdbridge dump: bring home a crash dump."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import click
import trio

from kdbridge.double_reading import ReadTwice
from kdbridge.dump import DumpKind, DumpLayoutChoice
from kdbridge.errors import DumpError, SnapshotError, UsageError
from kdbridge.opening import OpenTarget
from kdbridge.order import DumpOrder
from kdbridge.plan import kernel_plan
from kdbridge.snapshot import Snapshot
from kdbridge.target import Target
from kdbridge.transports import parse_target
from protocol.address import PAGE_SIZE, PageRun, PageRuns

from .asked import check_place, check_rendering
from .bringing import Wishes, announce, bring_home, default_folder, keeping, ways_on
from .dump_options import comment_option, kind_option, layout_option, then_option
from .output import json_option, print_json, target_document, tell
from .run import open_live, reconnect_option, record_option, run, say, wait_option
from .twice import verify_reads_option
from .words import duration, size

__all__ = ["dump_command"]

_SAMPLE = 16
"""Pages that are read to see how fast the line is: 6 s at 115200 baud."""


@click.command("dump", short_help="Bring home a crash dump of a target.")
@click.argument("target")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.dmp")
@kind_option(help="How much memory to bring home.")
@layout_option
@click.option("--break-in", is_flag=True, help="Stop the machine if it runs.")
@then_option
@comment_option
@click.option(
    "--keep-snapshot",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep what was read in this new folder (default: OUT.dmp.snapshot, removed when all went well).",
)
@click.option("--force", is_flag=True, help="Overwrite OUT.dmp.")
@click.option("--dry-run", is_flag=True, help="Only say what would be read, and how long it would take.")
@verify_reads_option
@reconnect_option
@wait_option
@record_option
@json_option
def dump_command(
    target: str, out: Path, kind: str, layout: str, break_in: bool, then: str, comment: str,
    keep_snapshot: Path | None, force: bool, dry_run: bool, twice: ReadTwice, reconnect: float | None, wait: float,
    as_json: bool,
) -> int:  # fmt: skip
    """Bring home a crash dump of TARGET into OUT.dmp, for WinDbg and other readers.

    The machine is only read from. One that runs is waited for, or stopped with --break-in; at the end it is left as
    it was, unless --then says otherwise. Ctrl-C keeps all that was read, `kdbridge resume OUT.dmp` goes on with it.
    """
    folder = keep_snapshot or default_folder(out)
    check_rendering(DumpKind(kind), DumpLayoutChoice(layout), comment)
    if dry_run:
        return run(lambda: _dry_run(target, DumpKind(kind), wait, break_in=break_in, as_json=as_json))
    _make_sure(out, folder, kind, force)
    order = DumpOrder(parse_target(target).keyless, str(out.absolute()), kind, layout, comment)
    wishes = Wishes(
        out, folder, keep_snapshot is not None, force, break_in, then, wait, reconnect, as_json, twice=twice
    )
    return keeping(folder, out, kind, lambda: bring_home(target, order, wishes))


def _make_sure(out: Path, folder: Path, kind: str, force: bool) -> None:
    """Before the target is touched: there is room for the dump and for the Snapshot."""
    try:
        check_place(out, force)
    except DumpError as error:
        raise DumpError(f"{error}. The target was not touched.") from None
    if folder == out:
        raise UsageError(f"{out} cannot be both the dump and the Snapshot's folder")
    if Snapshot.is_snapshot(folder):
        raise SnapshotError(
            f"{folder} exists already, perhaps of an earlier dump that was interrupted: {ways_on(folder, out, kind)}; "
            "or remove it. The target was not touched."
        )
    if folder.exists():
        raise SnapshotError(
            f"{folder} exists already and is no Snapshot: remove it, or name another folder with --keep-snapshot. "
            "The target was not touched."
        )


async def _dry_run(target: str, kind: DumpKind, wait: float, *, break_in: bool, as_json: bool) -> int:
    async with open_live(target, wait, break_in=break_in) as opened:
        started, before = trio.current_time(), opened.session.engine.bytes_received
        found = await opened.discover(lambda finding: None)
        rate = (opened.session.engine.bytes_received - before) / max(trio.current_time() - started, 1e-3)
        announce(found)
        return await _estimate(opened, found, kind, rate, as_json)


async def _estimate(opened: OpenTarget, found: Target, kind: DumpKind, rate: float, as_json: bool) -> int:
    say("working out what would be read" + (": the page tables are read for it" if kind is DumpKind.KERNEL else ""))
    pages = PageRuns()
    if kind is DumpKind.KERNEL:
        async for part in kernel_plan(opened, found):
            pages |= part.pages
    elif found.runs is not None:
        pages = found.runs
    amount = pages.page_count * PAGE_SIZE
    rate = await _measured(opened, found) or rate
    text = f"{kind}: {pages.page_count} pages, {size(amount)}, about {duration(amount / rate)} at {size(round(rate))}/s"
    if as_json:
        document = {"kind": str(kind), "pages": pages.page_count, "bytes": amount, "bytes_per_second": round(rate),
                    "seconds": round(amount / rate)}  # fmt: skip
        print_json({**document, "target": target_document(found)})
    else:
        tell(text)
    return 1 if found.shortcomings else 0


async def _measured(opened: OpenTarget, found: Target) -> float:
    """Bytes a second of reading pages in a row, by reading a few; 0 where none can be read."""
    if opened.physical is None or not found.runs:
        return 0.0
    started, count = trio.current_time(), 0
    sample = PageRun(found.runs[0].base_page, min(found.runs[0].page_count, _SAMPLE))
    async with aclosing(opened.physical.read_pages([sample])) as pages:  # type: ignore[type-var]
        async for page in pages:
            count += len(page.data or b"")
    return count / max(trio.current_time() - started, 1e-3)
