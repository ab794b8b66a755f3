"""Running a verb: trio, Ctrl-C as a cancellation that keeps everything, and sources by whatever name they have."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import click
import trio

from kdbridge.discovery import discover
from kdbridge.discovery.modules import with_names
from kdbridge.errors import FileError, UsageError
from kdbridge.memory.files import DumpFile
from kdbridge.opening import OpenTarget, open_target
from kdbridge.session import LISTEN
from kdbridge.snapshot import Snapshot
from kdbridge.source import Source
from kdbridge.target import Target
from kdbridge.transports import is_target, masked, masked_keys, parse_target
from protocol.conversation import KdEvent, Printed

from .words import harmless

__all__ = [
    "Interrupted",
    "known",
    "open_live",
    "open_source",
    "reconnect_option",
    "record_option",
    "run",
    "say",
    "wait_option",
]

_T = TypeVar("_T")
_SCHEME = re.compile(r"[A-Za-z][\w-]+:")
"""More than one letter before a colon: no drive of Windows, but a scheme, perhaps misspelt."""

wait_option = click.option(
    "--wait", default=30.0, metavar="SECONDS", help="How long to wait for the target to answer (default: 30)."
)

reconnect_option = click.option(
    "--reconnect", type=click.FloatRange(min=0), metavar="SECONDS",
    help="How long to look for a target that was lost (default: until Ctrl-C; 0: not at all).",
)  # fmt: skip

_RECORD = "kdbridge.record"


def _keep_record(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    context.meta[_RECORD] = value


record_option = click.option(
    "--record", type=click.Path(path_type=Path), metavar="FILE.pcapng", expose_value=False, callback=_keep_record,
    help="Record what goes over the line into this new file, for kdbridge decode, replay: and Wireshark.",
)  # fmt: skip
"""Of every verb that talks to a target; `open_live` does it. So no verb has to hand it on."""


class Interrupted(Exception):  # noqa: N818  (nothing went wrong: the user said stop)
    """The user pressed Ctrl-C, or the process was told to end. The text says what was kept."""


def say(text: str) -> None:
    """A line for the person at the terminal: never mixed with the output, and no reason to stop if nobody reads it."""
    with suppress(OSError):
        click.echo(harmless(masked_keys(text), kept="\n\t"), err=True)


def run(main: Callable[[], Awaitable[_T]]) -> _T:
    """Run a verb. Ctrl-C and SIGTERM cancel it, so that it keeps what it has; then Interrupted is raised."""
    results: list[_T] = []
    failures: list[BaseException] = []
    stopped = False

    async def watch(scope: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
        nonlocal stopped
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                stopped = True
                scope.cancel()

    async def watched() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, nursery.cancel_scope)
            try:
                results.append(await main())
            except trio.Cancelled:
                raise
            except BaseExceptionGroup as group:
                if group.split(trio.Cancelled)[1] is None:
                    raise
                failures.append(group)
            except BaseException as error:
                failures.append(error)
            nursery.cancel_scope.cancel()

    trio.run(watched)
    if failures:
        raise failures[0]
    if results:
        return results[0]
    raise Interrupted("" if stopped else "cancelled")


def _show_prints(event: KdEvent) -> None:
    if isinstance(event, Printed):
        say(event.text.decode("utf-8", "replace").replace("\r", "").removesuffix("\n"))


@asynccontextmanager
async def open_live(
    address: str, wait: float, *, break_in: bool = False, listen: float = LISTEN, connection: int = 1
) -> AsyncIterator[OpenTarget]:
    """A target, taken over; its prints and what happens are shown as they come. Each `connection` has its recording."""
    if not wait > 0:
        raise UsageError(f"--wait {wait:g}: nothing can answer in that time")
    say(f"listening on {masked(address)}" + (" (a break-in is sent if it runs)" if break_in else ""))
    async with open_target(
        address,
        wait=wait,
        break_in=break_in,
        listen=listen,
        report=say,
        on_event=_show_prints,
        record=_recording(connection),
    ) as target:
        yield target


def _recording(connection: int = 1) -> Path | None:
    context = click.get_current_context(silent=True)
    path: Path | None = None if context is None else context.meta.get(_RECORD)
    return path if path is None or connection == 1 else path.with_name(f"{path.stem}.{connection}{path.suffix}")


@asynccontextmanager
async def open_source(name: str, wait: float) -> AsyncIterator[Source]:
    """A live target, a Snapshot folder or a dump file, by what the user wrote."""
    path = Path(name)
    if is_target(name):
        async with open_live(name, wait) as target:
            yield target
    elif record := _recording():
        raise UsageError(f"{name} is no target: there is no line to be recorded into {record}")
    elif Snapshot.is_snapshot(path):
        with Snapshot.open(path) as snapshot:
            yield snapshot
    elif path.is_dir():  # noqa: ASYNC240  (one look at a name)
        raise FileError(f"{name} is a folder, but no Snapshot: target.json or coverage is missing in it")
    else:
        if _SCHEME.match(name) and not path.exists():  # noqa: ASYNC240
            parse_target(name)  # says which schemes there are
        with DumpFile(path) as dump:
            for text in dump.layout.shortcomings:
                say(f"{name}: {text}")
            yield dump


async def known(source: Source, *, aloud: bool = False) -> Target:
    """What discovery finds, or found when the Snapshot was made."""
    if isinstance(source, OpenTarget):
        return await source.discover((lambda finding: say(f"  {finding.step}: {finding.text}")) if aloud else None)
    if isinstance(source, Snapshot):
        # It may be of an analysis that was ended after its first look.
        return await with_names(source, source.target)
    return await discover(source)
