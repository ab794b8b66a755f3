"""Progress on stderr: a bar where a person looks at a terminal, a plain line now and then where none does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.progress import TaskID as RichTask

from kdbridge.progress import Progress as Look
from kdbridge.progress import ProgressSink

from .run import say
from .words import duration, size

__all__ = ["shown_progress"]

_PLAIN_EVERY = 5.0


def _line(look: Look) -> str:
    total = f" of {size(look.total)}" if look.total else ""
    share = f" ({min(100 * look.done / look.total, 100):.0f} %)" if look.total else ""
    left = f", {duration(look.time_left)} left" if look.time_left is not None else ""
    if look.time_to_next is not None:
        left = f", {look.next} in {duration(look.time_to_next)}, all of it in {duration(look.time_left)}"
    bad = f", {look.unreadable} pages unreadable" if look.unreadable else ""
    return f"{size(look.done)}{total}{share}, {size(round(look.rate))}/s{left}{bad}"


@contextmanager
def shown_progress() -> Iterator[ProgressSink]:
    """A sink for Progress. On a terminal the bar is gone when it ends; piped, lines are at least 5 s apart."""
    if not sys.stderr.isatty():
        last = trio.current_time()

        def plain(look: Look) -> None:
            nonlocal last
            now = trio.current_time()
            if now >= last + _PLAIN_EVERY:
                last = now
                say(f"{look.what}: {_line(look)}")

        yield plain
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[line]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, RichTask] = {}

        def pretty(look: Look) -> None:
            if "" not in tasks:
                tasks[""] = bar.add_task(look.what, total=look.total, line="")
            bar.update(tasks[""], description=look.what, total=look.total, completed=look.done, line=_line(look))

        yield pretty
