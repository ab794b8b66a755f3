"""Options of the verbs that write a dump: each is written once, and means the same wherever it is."""

from __future__ import annotations

from functools import partial

import click

from kdbridge.dump import DumpKind, DumpLayoutChoice

__all__ = ["comment_option", "kind_option", "layout_option", "then_option"]

kind_option = partial(
    click.option,
    "--kind",
    type=click.Choice([kind.value for kind in DumpKind]),
    default="complete",
    show_default=True,
)
"""Takes its `help`: a verb brings memory home, another writes it."""

layout_option = click.option(
    "--layout",
    type=click.Choice([layout.value for layout in DumpLayoutChoice]),
    default="auto",
    show_default=True,
    help="A complete dump's layout: runs (type 1) up to 42 runs, bitmap (type 5) beyond.",
)

comment_option = click.option("--comment", default="", metavar="TEXT", help="Comment to write into the dump.")

then_option = click.option(
    "--then",
    type=click.Choice(["leave", "continue", "reboot"]),
    default="leave",
    show_default=True,
    help="What to do with the machine once the dump is written and verified.",
)
