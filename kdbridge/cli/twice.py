"""--verify-reads: how much is read twice."""

from __future__ import annotations

import click

from kdbridge.double_reading import ReadTwice

__all__ = ["verify_reads_option"]


def _read_twice(context: click.Context, parameter: click.Parameter, value: str | None) -> ReadTwice:
    if value is None:
        return ReadTwice()
    try:
        share = float(value.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{value!r} is no share of the pages; write a number from 0% to 100%")
    return ReadTwice(share, automatic=share > 0)


verify_reads_option = click.option(
    "--verify-reads", "twice", metavar="N%", callback=_read_twice,
    help="Read this share of the pages twice and compare (default: all, once the line is so bad that KD's checksum "
    "may let an error through; 0%: none, even then).",
)  # fmt: skip
