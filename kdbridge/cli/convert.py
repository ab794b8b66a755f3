"""kdbridge convert: a dump out of a Snapshot, or a smaller one out of a bigger one."""

from __future__ import annotations

from pathlib import Path

import click

from kdbridge.dump import DumpKind, DumpLayoutChoice, render
from kdbridge.errors import DumpError, UsageError
from kdbridge.memory.files import DumpFile
from kdbridge.snapshot import Snapshot
from kdbridge.transports import is_target

from .asked import check_place, check_rendering
from .bar import shown_progress
from .dump_options import comment_option, kind_option, layout_option
from .output import json_option, print_json
from .run import known, open_source, run, say
from .words import size

__all__ = ["convert_command"]


@click.command("convert", short_help="Make a dump of a Snapshot, or a smaller one of a bigger one.")
@click.argument("source", metavar="SNAPSHOT|DUMP")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.dmp")
@kind_option(help="How much memory to write.")
@layout_option
@comment_option
@click.option("--partial", is_flag=True, help="Write what there is, even if pages of this kind were never read.")
@click.option("--strict", is_flag=True, help="Leave out what was inferred: only what was read is written.")
@click.option("--force", is_flag=True, help="Overwrite OUT.dmp.")
@json_option
def convert_command(
    source: str, out: Path, kind: str, layout: str, comment: str, partial: bool, strict: bool, force: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Make a dump of a Snapshot folder or of another dump file, without any target.

    Exit code 1: pages are missing in it, or registers could not be put where a debugger looks for them.
    """
    check_rendering(DumpKind(kind), DumpLayoutChoice(layout), comment)
    if is_target(source):
        raise UsageError(f"{source} is a target: convert works on what was brought home; `kdbridge dump` brings it")

    async def main() -> int:
        async with open_source(source, 1.0) as opened:
            if not isinstance(opened, (Snapshot, DumpFile)):
                raise DumpError("convert works on what was brought home: a Snapshot or a dump file")
            check_place(out, force, Path(source))
            target = await known(opened)
            with shown_progress() as progress:
                rendered = await render(
                    opened, target, out, kind=DumpKind(kind), layout=DumpLayoutChoice(layout),
                    comment=comment, force=force, partial=partial, strict=strict, progress=progress,
                )  # fmt: skip
        if as_json:
            counts = {"pages": rendered.pages, "pieces": rendered.pieces, "unreadable": rendered.unreadable,
                      "missing": rendered.missing}  # fmt: skip
            print_json({"path": str(out), "dump_type": rendered.dump_type.value, "size": rendered.size, **counts})
        say(f"{out}: dump type {rendered.dump_type.value} ({rendered.dump_type.name}), {size(rendered.size)}, "
            f"{rendered.amount}" + (f", {rendered.missing} missing" if rendered.missing else ""))  # fmt: skip
        if rendered.unreadable:
            say(f"{rendered.unreadable} pages could not be read from the target")
        for text in rendered.shortcomings:
            say(f"missing: {text}")
        return 1 if rendered.unreadable or rendered.missing or rendered.shortcomings else 0

    return run(main)
