"""kdbridge convert: a dump out of a Snapshot, or a smaller one out of a bigger one."""

from __future__ import annotations

from pathlib import Path

import click

from kdbridge.dump import DumpKind, DumpLayoutChoice, render
from kdbridge.errors import DumpError
from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot

from .bar import shown_progress
from .output import json_option, print_json
from .run import known, open_source, run, say
from .words import size

__all__ = ["convert_command"]


@click.command("convert")
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice([kind.value for kind in DumpKind]), default="complete", show_default=True)
@click.option(
    "--layout", type=click.Choice([layout.value for layout in DumpLayoutChoice]), default="auto", show_default=True
)
@click.option("--comment", default="", metavar="TEXT", help="Comment to write into the dump.")
@click.option("--partial", is_flag=True, help="Write what there is, even if pages of this kind were never read.")
@click.option("--force", is_flag=True, help="Overwrite OUT.")
@json_option
def convert_command(
    source: str, out: Path, kind: str, layout: str, comment: str, partial: bool, force: bool, as_json: bool
) -> int:  # fmt: skip
    """Make a dump of SOURCE, a Snapshot folder or a dump file, without any target."""

    async def main() -> int:
        async with open_source(source, 1.0) as opened:
            if not isinstance(opened, (Snapshot, DumpFile)):
                raise DumpError("convert works on what was brought home: a Snapshot or a dump file")
            if isinstance(opened, DumpFile) and opened.path.resolve() == out.resolve():  # noqa: ASYNC240
                raise DumpError(f"{out} is the source itself")
            target = await known(opened)
            with shown_progress() as progress:
                rendered = await render(
                    opened, target, out, kind=DumpKind(kind), layout=DumpLayoutChoice(layout),
                    comment=comment, force=force, partial=partial, progress=progress,
                )  # fmt: skip
        if as_json:
            counts = {"pages": rendered.pages, "unreadable": rendered.unreadable, "missing": rendered.missing}
            print_json({"path": str(out), "dump_type": rendered.dump_type.value, "size": rendered.size, **counts})
        say(f"{out}: dump type {rendered.dump_type.value} ({rendered.dump_type.name}), {size(rendered.size)}, "
            f"{rendered.pages} pages" + (f", {rendered.missing} missing" if rendered.missing else ""))  # fmt: skip
        return 1 if rendered.missing or rendered.shortcomings else 0

    return run(main)
