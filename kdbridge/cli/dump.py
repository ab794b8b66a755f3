"""kdbridge dump: bring home a crash dump."""

from __future__ import annotations

from pathlib import Path

import click

from kdbridge.acquire import Inference
from kdbridge.double_reading import ReadTwice
from kdbridge.dump import DumpKind, DumpLayoutChoice
from kdbridge.errors import DumpError, SnapshotError, UsageError
from kdbridge.order import DumpOrder
from kdbridge.snapshot import Snapshot
from kdbridge.transports import parse_target

from .asked import check_place, check_rendering
from .bringing import Wishes, bring_home, default_folder, keeping, ways_on
from .budget_options import Limits, budget_options
from .dry_run import dry_run
from .dump_options import comment_option, kind_option, layout_option, then_option
from .inference_options import inference_options
from .output import json_option
from .run import reconnect_option, record_option, run, wait_option
from .twice import verify_reads_option

__all__ = ["dump_command"]


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
@click.option(
    "--dry-run",
    "only_say",
    is_flag=True,
    help="Only say how much would be read for each kind, and how long it would take.",
)
@budget_options
@inference_options
@verify_reads_option
@reconnect_option
@wait_option
@record_option
@json_option
def dump_command(
    target: str, out: Path, kind: str, layout: str, break_in: bool, then: str, comment: str,
    keep_snapshot: Path | None, force: bool, only_say: bool, limits: Limits,
    inference: Inference, twice: ReadTwice, reconnect: float | None, wait: float, as_json: bool,
) -> int:  # fmt: skip
    """Bring home a crash dump of TARGET into OUT.dmp, for WinDbg and other readers.

    The machine is only read from. One that runs is waited for, or stopped with --break-in; at the end it is left as
    it was, unless --then says otherwise. Ctrl-C keeps all that was read, `kdbridge resume OUT.dmp` goes on with it.

    What matters most is read first: within a minute or two a small dump could be written, then a kernel dump, and so
    on. With --within, --until or --bytes the best kind that was finished by then is written.
    """
    folder = keep_snapshot or default_folder(out)
    check_rendering(DumpKind(kind), DumpLayoutChoice(layout), comment)
    if only_say:
        return run(lambda: dry_run(target, DumpKind(kind), wait, limits, break_in=break_in, as_json=as_json))
    _make_sure(out, folder, kind, force)
    order = DumpOrder(parse_target(target).keyless, str(out.absolute()), kind, layout, comment)
    wishes = Wishes(
        out,
        folder,
        keep_snapshot is not None,
        force,
        break_in,
        then,
        wait,
        reconnect,
        as_json,
        twice=twice,
        limits=limits,
        inference=inference,
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
