"""kdbridge resume: go on with a dump that was begun, by what its Snapshot holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from kdbridge.acquire import Inference
from kdbridge.double_reading import ReadTwice
from kdbridge.errors import SnapshotError
from kdbridge.order import DumpOrder
from kdbridge.snapshot import Snapshot
from kdbridge.transports import parse_target

from .asked import check_place
from .bringing import Wishes, bring_home, default_folder, keeping
from .budget_options import Limits, budget_options
from .dump_options import then_option
from .inference_options import inference_options
from .output import json_option
from .run import reconnect_option, record_option, wait_option
from .twice import verify_reads_option

__all__ = ["resume_command"]


@click.command("resume", short_help="Go on with a dump that was interrupted.")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.dmp|SNAPSHOT")
@click.option("--target", metavar="TARGET", help="Where the machine is now, if not where it was.")
@click.option(
    "--new-life", is_flag=True,
    help="If the machine restarted or went on: begin anew. What was read of its former life is kept beside.",
)  # fmt: skip
@then_option
@click.option("--force", is_flag=True, help="Overwrite OUT.dmp, such as a partial dump made meanwhile.")
@budget_options
@inference_options
@verify_reads_option
@reconnect_option
@wait_option
@record_option
@json_option
def resume_command(
    out: Path, target: str | None, new_life: bool, then: str, force: bool, limits: Limits,
    inference: Inference, twice: ReadTwice, reconnect: float | None, wait: float, as_json: bool,
) -> int:  # fmt: skip
    """Go on with a dump that was interrupted: nothing that is in its Snapshot is read again.

    First it is proved that the machine is the same and still in the same stop. The machine is only read from.
    """
    folder = out if Snapshot.is_snapshot(out) else default_folder(out)
    if not Snapshot.is_snapshot(folder):
        raise SnapshotError(f"{folder} is no Snapshot: there is nothing to go on with. `kdbridge dump` begins a dump")
    before = order = DumpOrder.load(folder)
    file = Path(order.out) if folder == out else out
    check_place(file, force)
    address = target or order.target
    order = replace(order, target=parse_target(address).keyless, out=str(file.absolute()))
    keep = folder != default_folder(file)
    wishes = Wishes(
        file, folder, keep, force, False, then, wait, reconnect, as_json, new_life, twice, limits, inference
    )

    async def go_on() -> int:
        snapshot = Snapshot.open(folder, writable=True)
        try:
            if order != before:
                order.save(folder)
        except SnapshotError:
            snapshot.close()
            raise
        return await bring_home(address, order, wishes, snapshot)

    return keeping(folder, file, order.kind, go_on)
