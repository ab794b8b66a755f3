"""The command `kdbridge` itself: its verbs, and how every error becomes one clear sentence and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version

import click

from kdbridge.transports import masked_keys
from protocol.errors import KdError

from .run import Interrupted, say

__all__ = ["VERBS", "commands", "main"]

_FILE = 5
_INTERRUPTED = 130
_EPILOG = """\b
TARGET   serial:/dev/ttyUSB0?baud=115200 · COM3 · tcp:HOST:PORT · tcp-listen:HOST:PORT · unix:PATH
         unix-listen:PATH · pipe:\\\\.\\pipe\\NAME · rfc2217:HOST:PORT · sim:SCENARIO · replay:FILE
         net:port=50000,key=w.x.y.z[,target=ADDRESS] as WinDbg takes it, or with the key in KDBRIDGE_KEY
         or WinDbg's own: com:port=COM1,baud=115200 · com:pipe,port=\\\\.\\pipe\\NAME,resets=0,reconnect

\b
Exit codes: 0 done · 1 done, with shortcomings named · 2 usage · 3 no contact · 4 target lost or refused
            5 file error · 130 interrupted (what was read is kept)
"""
VERBS = (
    "dump", "resume", "info", "analyze", "triage-name", "modules", "processes", "stack", "print-buffer", "doctor",
    "registers", "memory", "convert", "verify", "break", "continue", "reboot", "crash", "simulate", "ports", "keygen",
    "decode", "tap",
)  # fmt: skip
_IN_CONTROL = ("break", "continue", "reboot", "crash")


class _Gone(Exception):  # noqa: N818  (nothing went wrong: whoever read our output has what they wanted)
    """The reader of stdout has gone away. A name of our own, as click has an exit code of its own for this."""


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, as `--help` lists them."""
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of this name. Its module is loaded here, as most of a short command's time is loading modules."""
        if cmd_name not in VERBS:
            return None
        name = cmd_name.replace("-", "_")
        module = import_module(f".{'control' if cmd_name in _IN_CONTROL else name}", __package__)
        command: click.Command = getattr(module, f"{name}_command")
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _Gone from None


@click.group(
    cls=_Verbs, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(version("kdbridge"), prog_name="kdbridge")
def commands() -> None:
    """Take over a Windows machine that has stopped, read it, and bring home a crash dump.

    A machine is only read from. What stops, continues, restarts or crashes it is a verb or an option of that name:
    break, continue, reboot, crash, --break-in, --then.
    """


def main() -> None:
    """Run the command line and end the process with its exit code."""
    with _streams():
        code = _run()
    sys.exit(code)


def _run() -> int:
    try:
        code = commands.main(prog_name="kdbridge", standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(masked_keys(shown.getvalue()), err=True, nl=False)
        return error.exit_code
    except Interrupted as stop:
        text = str(stop)
        say(f"kdbridge: interrupted{f'; {text}' if text else ''}")
        return _INTERRUPTED
    except (click.exceptions.Abort, KeyboardInterrupt):
        say("kdbridge: interrupted")
        return _INTERRUPTED
    except BaseExceptionGroup as group:
        # A second Ctrl-C, while the first one was being dealt with.
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        say("kdbridge: interrupted")
        return _INTERRUPTED
    except KdError as error:
        say(f"kdbridge: {error}")
        return int(getattr(error, "exit_code", 4))
    except _Gone:
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"kdbridge: {where}{error.strerror or error}")
        return _FILE
    return code if isinstance(code, int) else 0


@contextmanager
def _streams() -> Iterator[None]:
    """Output to nowhere where there is none; and no complaint from Python's last flush into what was closed."""
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names and what a target calls its modules need not be in this terminal's alphabet.
        sys.stdout.reconfigure(errors="backslashreplace")
    yield
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
