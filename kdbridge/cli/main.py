"""The command `kdbridge` itself: its verbs, and how every error becomes one clear sentence and an exit code."""

from __future__ import annotations

import sys
from importlib.metadata import version

import click

from protocol.errors import KdError

from .control import break_command, continue_command, crash_command, reboot_command
from .convert import convert_command
from .dump import dump_command
from .info import info_command
from .memory import memory_command
from .ports import ports_command
from .registers import registers_command
from .run import Interrupted
from .simulate import simulate_command
from .verify import verify_command

__all__ = ["commands", "main"]

_INTERRUPTED = 130
_EPILOG = """\b
TARGET   serial:/dev/ttyUSB0?baud=115200 · COM3 · tcp:HOST:PORT · tcp-listen:HOST:PORT · unix:PATH
         unix-listen:PATH · pipe:\\\\.\\pipe\\NAME · rfc2217:HOST:PORT · sim:SCENARIO
         or WinDbg's own: com:port=COM1,baud=115200 · com:pipe,port=\\\\.\\pipe\\NAME,resets=0,reconnect

\b
Exit codes: 0 done · 1 done, with shortcomings named · 2 usage · 3 no contact · 4 target lost or refused
            5 file error · 130 interrupted (what was read is kept)
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("kdbridge"), prog_name="kdbridge")
def commands() -> None:
    """Take over a Windows machine that has stopped, read it, and bring home a crash dump.

    Nothing writes to, stops, continues or restarts the machine, but --break-in, --then and the verbs named after it.
    """


for command in (
    dump_command,
    info_command,
    registers_command,
    memory_command,
    convert_command,
    verify_command,
    break_command,
    continue_command,
    reboot_command,
    crash_command,
    simulate_command,
    ports_command,
):
    commands.add_command(command)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        code = commands.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = _INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (Interrupted, KeyboardInterrupt) as stop:
        text = str(stop)
        click.echo(f"kdbridge: interrupted{f'; {text}' if text else ''}", err=True)
        code = _INTERRUPTED
    except KdError as error:
        click.echo(f"kdbridge: {error}", err=True)
        code = getattr(error, "exit_code", 4)
    except BrokenPipeError:
        # Whoever read our output has gone away: nothing is left to say, and nobody to say it to.
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
