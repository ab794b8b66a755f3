"""kdbridge ports: the serial ports that are here, with what is known of each."""

from __future__ import annotations

import click

from kdbridge.ports import list_ports

from .output import json_option, print_json, tell

__all__ = ["ports_command"]


@click.command("ports")
@json_option
def ports_command(as_json: bool) -> int:
    """Serial ports of this machine, with what is known of each."""
    ports = list_ports()
    if as_json:
        print_json([port.to_json() for port in ports])
        return 0
    if not ports:
        tell("no serial ports; a USB adapter shows up here as soon as it is plugged in")
    for port in ports:
        tell(f"serial:{port.device}")
        for name, value in port.to_json().items():
            if name != "device" and value not in (None, ""):
                tell(f"    {name.replace('_', ' ')}: {value}")
    return 0
