"""kdbridge keygen: a key for debugging over the network, and what is to be typed at both ends."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from kdbridge.errors import FileError
from kdbridge.interfaces import LocalAddress, local_addresses
from kdbridge.transports.net_key import VARIABLE
from protocol.kdnet import ControlKey, format_key

from .output import json_option, print_json, tell
from .words import quoted

__all__ = ["keygen_command"]

_KEY_SIZE = 32


@click.command("keygen", short_help="Make a key for debugging over the network.")
@click.option(
    "--port", type=click.IntRange(1024, 65535), default=50000, show_default=True, metavar="N",
    help="UDP port of both ends; KDNET's are 49152 to 65535, one for each target.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Put the key into this new file, for you alone."
)  # fmt: skip
@json_option
def keygen_command(port: int, out: Path | None, as_json: bool) -> int:
    """Make a key for debugging over the network, and print what is to be typed at the target and here.

    The key has 256 bits from the operating system's source of random numbers. Nothing is sent anywhere.
    """
    key = format_key(ControlKey(secrets.token_bytes(_KEY_SIZE)))
    if out is not None:
        _keep(out, key)
    addresses = _for_a_target(local_addresses())
    settings = [f"bcdedit /dbgsettings net hostip:{one.address} port:{port} key:{key}" for one in _fourth(addresses)]
    here = f"net:port={port}" + (f",keyfile={out}" if out is not None else "")
    if as_json:
        print_json({
            "key": key,
            "port": port,
            "addresses": [{"interface": one.interface, "address": one.address} for one in addresses],
            "at_the_target": ["bcdedit /debug on", *settings],
            "here": here,
        })  # fmt: skip
        return 0
    _tell_target(addresses, settings)
    tell("")
    tell("Here:")
    if out is None:
        tell(f"  {'set' if os.name == 'nt' else 'export'} {VARIABLE}={key}")
    tell(f"  {quoted('kdbridge', 'info', here)}")
    return 0


def _tell_target(addresses: list[LocalAddress], settings: list[str]) -> None:
    fourth = _fourth(addresses)
    tell("At the target, as administrator:")
    tell("  bcdedit /debug on")
    for one, line in zip(fourth, settings, strict=True):
        if len(fourth) > 1 or one.is_loopback or one.is_link_local:
            tell(f"  rem {_where(one)}{', or' if one is not fourth[-1] else ''}")
        tell(f"  {line}")
    if not fourth:
        tell("  rem this machine has no IPv4 address that a target could be told; give it one, and run this again")
    tell("  shutdown /r /t 0")
    sixth = [one.address for one in addresses if one.version == 6]
    if sixth:
        tell(f"This machine also has {', '.join(sixth)}; only recent systems take an IPv6 address for their host's.")


def _where(one: LocalAddress) -> str:
    through = f"through {one.interface}" if one.interface else f"through {one.address}"
    if one.is_loopback:
        return f"{through}: this machine only"
    return f"{through}: from the same cable only" if one.is_link_local else through


def _for_a_target(addresses: list[LocalAddress]) -> list[LocalAddress]:
    """Those that another machine can use; this machine's own where there are no others."""
    others = [one for one in addresses if not one.is_loopback and not (one.version == 6 and one.is_link_local)]
    return others or [one for one in addresses if one.is_loopback and one.version == 4]


def _fourth(addresses: list[LocalAddress]) -> list[LocalAddress]:
    return [one for one in addresses if one.version == 4]


def _keep(out: Path, key: str) -> None:
    """A new file that nobody else can read. Raises FileError."""
    try:
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(f"{key}\n")
    except FileExistsError:
        raise FileError(f"{out} exists already; a key in it may be in use. Remove it, or name another file") from None
    except OSError as error:
        raise FileError(f"{out} cannot be written: {error.strerror or error}") from None
