"""--within, --until, --bytes: how much a capture may take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

import click
import trio

from kdbridge.budget import Budget

from .gathered import gathered
from .words import duration, size

__all__ = ["Limits", "budget_options"]

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s?)?", re.ASCII | re.IGNORECASE)
_UNITS = (86400, 3600, 60, 1)
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user allows; infinite where nothing was said."""

    seconds: float = inf
    size: float = inf

    def budget(self) -> Budget:
        """From now on."""
        return Budget(deadline=trio.current_time() + self.seconds, size=self.size)

    @property
    def set(self) -> bool:
        """Whether there is any."""
        return self.seconds < inf or self.size < inf

    def __str__(self) -> str:
        times = [duration(self.seconds)] if self.seconds < inf else []
        sizes = [size(int(self.size))] if self.size < inf else []
        return " or ".join([*times, *sizes])


def _within(context: click.Context, parameter: click.Parameter, value: str | None) -> float:
    if value is None:
        return inf
    found = _DURATION.fullmatch(value.strip())
    seconds = sum(int(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part) if found else 0
    if not seconds:
        raise click.BadParameter(f"{value!r} is no time; write 20m, 90s or 1h30m")
    return float(seconds)


def _until(context: click.Context, parameter: click.Parameter, value: str | None) -> float:
    if value is None:
        return inf
    found = _CLOCK.fullmatch(value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is no time of day; write 18:30")
    now = datetime.now().astimezone()
    end = now.replace(hour=int(found[1]), minute=int(found[2]), second=0, microsecond=0)
    if end <= now:
        end += timedelta(days=1)
    return (end - now).total_seconds()


def _bytes(context: click.Context, parameter: click.Parameter, value: str | None) -> float:
    if value is None:
        return inf
    found = _SIZE.fullmatch(value.strip())
    count = int(float(found[1]) * (1 << _SHIFTS[found[2].upper()])) if found else 0
    if not count:
        raise click.BadParameter(f"{value!r} is no size; write 10M, 512K or 4096")
    return float(count)


_OPTIONS = (
    click.option("--within", callback=_within, metavar="TIME", help="Stop reading after so long: 20m, 90s, 1h30m."),
    click.option("--until", callback=_until, metavar="HH:MM", help="Stop reading at this time of day, here."),
    click.option("--bytes", "most", callback=_bytes, metavar="SIZE", help="Stop after so much memory: 10M, 1G."),
)


def _limits(within: float, until: float, most: float) -> Limits:
    return Limits(min(within, until), most)


budget_options = gathered(_OPTIONS, "limits", _limits, "within", "until", "most")
"""The three options; the verb is given one `limits`."""
