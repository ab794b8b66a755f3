"""kdbridge dump: bring home a crash dump."""

from __future__ import annotations

import shutil
from contextlib import aclosing
from pathlib import Path

import click
import trio

from kdbridge.dump import DumpKind, DumpLayoutChoice, Rendered, render, verify
from kdbridge.errors import DumpError, SnapshotError, UsageError
from kdbridge.memory.files import DumpFile
from kdbridge.opening import OpenTarget
from kdbridge.plan import Plan, complete_plan, kernel_plan
from kdbridge.snapshot import Snapshot
from kdbridge.target import Target
from kdbridge.transports import masked
from protocol.address import PAGE_SIZE, PageRun, PageRuns
from protocol.errors import KdError

from .asked import check_place, check_rendering, check_runs
from .bar import shown_progress
from .output import json_option, print_json, target_document, tell
from .run import Interrupted, open_live, record_option, run, say, wait_option
from .words import duration, quoted, size, who_line, why_lines

__all__ = ["dump_command"]

_SAMPLE = 16
"""Pages that are read to see how fast the line is: 6 s at 115200 baud."""
_PLANS: dict[DumpKind, Plan] = {DumpKind.COMPLETE: complete_plan, DumpKind.KERNEL: kernel_plan}


@click.command("dump", short_help="Bring home a crash dump of a target.")
@click.argument("target")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.dmp")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in DumpKind]),
    default="complete",
    show_default=True,
    help="How much memory to bring home.",
)
@click.option(
    "--layout",
    type=click.Choice([layout.value for layout in DumpLayoutChoice]),
    default="auto",
    show_default=True,
    help="A complete dump's layout: runs (type 1) up to 42 runs, bitmap (type 5) beyond.",
)
@click.option("--break-in", is_flag=True, help="Stop the machine if it runs.")
@click.option(
    "--then",
    type=click.Choice(["leave", "continue", "reboot"]),
    default="leave",
    show_default=True,
    help="What to do with the machine once the dump is written and verified.",
)
@click.option("--comment", default="", metavar="TEXT", help="Comment to write into the dump.")
@click.option(
    "--keep-snapshot",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep what was read in this new folder (default: OUT.dmp.snapshot, removed when all went well).",
)
@click.option("--force", is_flag=True, help="Overwrite OUT.dmp.")
@click.option("--dry-run", is_flag=True, help="Only say what would be read, and how long it would take.")
@wait_option
@record_option
@json_option
def dump_command(
    target: str, out: Path, kind: str, layout: str, break_in: bool, then: str, comment: str,
    keep_snapshot: Path | None, force: bool, dry_run: bool, wait: float, as_json: bool,
) -> int:  # fmt: skip
    """Bring home a crash dump of TARGET into OUT.dmp, for WinDbg and other readers.

    The machine is only read from. One that runs is waited for, or stopped with --break-in; at the end it is left as
    it was, unless --then says otherwise. Ctrl-C keeps all that was read.
    """
    folder = keep_snapshot or out.parent / (out.name + ".snapshot")
    check_rendering(DumpKind(kind), DumpLayoutChoice(layout), comment)
    if not dry_run:
        _make_sure(out, folder, kind, force)

    async def main() -> int:
        async with open_live(target, wait, break_in=break_in) as opened:
            started, before = trio.current_time(), opened.session.engine.bytes_received
            found = await opened.discover(lambda finding: None)
            rate = (opened.session.engine.bytes_received - before) / max(trio.current_time() - started, 1e-3)
            for line in (f"found {who_line(found)}", *why_lines(found)):
                say(line)
            for finding in found.shortcomings:
                say(f"  missing: {finding.step}: {finding.text}")
            if dry_run:
                return await _dry_run(opened, found, DumpKind(kind), rate, as_json)
            check_runs(DumpLayoutChoice(layout), len(found.runs or ()))
            say(f"reading a {kind} dump into {folder}")
            snapshot = await _capture(opened, folder, DumpKind(kind))
            with snapshot:
                rendered = await _write(snapshot, out, DumpKind(kind), DumpLayoutChoice(layout), comment, force)
            code = _conclude(rendered, found, folder, kept=keep_snapshot is not None)
            if as_json:
                print_json(_document(rendered, found))
            if then != "leave":
                await _then(opened, then)
            elif break_in:
                say(f"the machine is left stopped; `{quoted('kdbridge', 'continue', masked(target))}` lets it go on")
            else:
                say("the machine is left as it was found: stopped")
            say(f"next: {quoted('kdbridge', 'info', out)}   or, on Windows: {quoted('windbg', '-z', out)}")
            return code

    try:
        return run(main)
    except Interrupted:
        raise Interrupted(_what_is_kept(folder, out, kind)) from None
    except KdError:
        kept = _what_is_kept(folder, out, kind)
        if kept and not dry_run:
            say(kept)
        raise


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
            f"{folder} exists already, perhaps of an earlier dump that was interrupted: make a dump of it with "
            f"`{_convert(folder, out, kind)}`, or remove it. The target was not touched."
        )
    if folder.exists():
        raise SnapshotError(
            f"{folder} exists already and is no Snapshot: remove it, or name another folder with --keep-snapshot. "
            "The target was not touched."
        )


async def _capture(opened: OpenTarget, folder: Path, kind: DumpKind) -> Snapshot:
    with shown_progress() as progress:
        snapshot = await opened.snapshot(folder, _PLANS[kind], progress)
    say(f"read {size(snapshot.held.page_count * PAGE_SIZE)} in {snapshot.held.page_count} pages")
    return snapshot


async def _write(
    snapshot: Snapshot, out: Path, kind: DumpKind, layout: DumpLayoutChoice, comment: str, force: bool
) -> Rendered:
    with shown_progress() as progress:
        rendered = await render(
            snapshot, snapshot.target, out,
            kind=kind, layout=layout, comment=comment, force=force, partial=True, progress=progress,
        )  # fmt: skip
        with DumpFile(out) as dump:
            checked = await verify(dump, snapshot, progress)
    if not checked.good:
        problems = "; ".join([*checked.problems, *(f"frame {pfn:#x} differs" for pfn in checked.differing[:4])])
        raise DumpError(f"{out} was written, but does not pass verification: {problems}. The Snapshot is kept.")
    return rendered


def _conclude(rendered: Rendered, found: Target, folder: Path, *, kept: bool) -> int:
    say(f"{rendered.path}: dump type {rendered.dump_type.value} ({rendered.dump_type.name}), {size(rendered.size)}, "
        f"{rendered.pages} pages, verified")  # fmt: skip
    if rendered.unreadable:
        say(f"{rendered.unreadable} pages could not be read; the Snapshot's log lists them")
    if rendered.missing:
        say(f"{rendered.missing} pages that belong into this kind were not read")
    for text in rendered.shortcomings:
        say(f"missing: {text}")
    flawed = bool(rendered.unreadable or rendered.missing or rendered.shortcomings or found.shortcomings)
    if kept or flawed:
        say(f"the Snapshot is in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if flawed else 0


async def _then(opened: OpenTarget, then: str) -> None:
    if then == "reboot":
        acknowledged = await opened.session.reboot()
        say("the machine restarts" if acknowledged else "told to restart; it did not acknowledge, and may have")
        return
    again = await opened.session.resume()
    say(
        "the machine goes on"
        if not again
        else "told to go on; it stopped again at once (a bug check's last break does)"
    )


async def _dry_run(opened: OpenTarget, found: Target, kind: DumpKind, rate: float, as_json: bool) -> int:
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


def _document(rendered: Rendered, found: Target) -> dict[str, object]:
    return {
        "path": str(rendered.path),
        "dump_type": rendered.dump_type.value,
        "size": rendered.size,
        "pages": rendered.pages,
        "unreadable": rendered.unreadable,
        "missing": rendered.missing,
        "overlaid": rendered.overlaid,
        "shortcomings": list(rendered.shortcomings),
        "target": target_document(found),
    }


def _what_is_kept(folder: Path, out: Path, kind: str) -> str:
    if not Snapshot.is_snapshot(folder):
        return ""
    try:
        with Snapshot.open(folder) as snapshot:
            pages = snapshot.held.page_count
    except SnapshotError:
        return ""
    if not pages:
        return f"no page is kept; {folder} holds registers and what was found out, and can be removed"
    how = _convert(folder, out, kind)
    return f"{pages} pages ({size(pages * PAGE_SIZE)}) are kept in {folder}; `{how}` makes a dump of them"


def _convert(folder: Path, out: Path, kind: str) -> str:
    """The command that makes a dump of what a Snapshot holds."""
    force = ("--force",) if out.exists() else ()
    return quoted("kdbridge", "convert", folder, out, "--kind", kind, "--partial", *force)
