"""kdbridge decode: what two ends said to each other, out of a capture, one line a packet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

from kdbridge.capture.conversation import decode_frames
from kdbridge.capture.reader import read_frames
from kdbridge.capture.selection import Selection
from kdbridge.capture.tally import Tally
from kdbridge.errors import UsageError
from kdbridge.transports.address import TargetAddress
from kdbridge.transports.net_key import VARIABLE, find_any_key
from protocol.kdnet import ControlKey, KeyTextError, parse_key

from .output import json_option, print_json, tell
from .packets import packet_document, packet_line, when
from .run import say

__all__ = ["decode_command"]


@click.command("decode", short_help="What was on the wire, from a capture.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", metavar="W.X.Y.Z", help=f"The target's key; else {VARIABLE} has it. Serial lines have none.")
@click.option("--keyfile", type=click.Path(path_type=Path), metavar="FILE", help="A file with the key.")
@click.option(
    "--filter", "terms", multiple=True, metavar="TERM",
    help="Only packets that fit: api=NAME, type=KIND, dir=target|host, odd, odd=KIND. May be given several times.",
)  # fmt: skip
@json_option
def decode_command(file: Path, key: str | None, keyfile: Path | None, terms: tuple[str, ...], as_json: bool) -> int:
    """Print the conversation in FILE: time, direction, id, what it means, and what is odd.

    FILE is pcap or pcapng, also gzipped: a recording of --record, or what Wireshark or tcpdump wrote. Exit code 1: some
    of it could not be opened, and the end says why.
    """
    control_key = _key(key, keyfile, os.environ)
    selection = Selection(terms)
    tally = Tally()
    notes: list[str] = []
    documents: list[dict[str, object]] = []
    for packet in decode_frames(read_frames(file, report=notes.append), control_key):
        if not tally.packets and not as_json:
            tell(f"{file}: from {when(packet.time)}")
        tally.count(packet)
        if not selection.wants(packet):
            continue
        if as_json:
            documents.append(packet_document(packet))
        else:
            tell(packet_line(packet, tally.first))
    if as_json:
        print_json({"file": str(file), "packets": documents, "summary": tally.document(), "notes": notes})
    elif tally.packets:
        for line in tally.lines():
            tell(line)
    return _ending(file, tally, notes, control_key)


def _ending(file: Path, tally: Tally, notes: list[str], key: ControlKey | None) -> int:
    for note in notes:
        say(f"kdbridge: {note}")
    if not tally.packets:
        say(f"kdbridge: {file}: nothing of a kernel debugger is in it, neither serial bytes nor KDNET's datagrams")
        return 1
    if tally.datagrams and key is None:
        say(
            f"kdbridge: {tally.datagrams} datagrams are encrypted; "
            "give the key of the target with --key, --keyfile, or in KDBRIDGE_KEY"
        )
    elif tally.key_is_wrong:
        say(f"kdbridge: the key is wrong: none of {tally.datagrams} datagrams authenticates with it")
    return 1 if tally.shut else 0


def _key(text: str | None, path: Path | None, environment: Mapping[str, str]) -> ControlKey | None:
    """The key, by what the user gave; None: nothing."""
    if text is not None and path is not None:
        raise UsageError("--key and --keyfile: give one of the two")
    if text is not None:
        try:
            return parse_key(text)
        except KeyTextError as error:
            raise UsageError(f"{error} (--key)") from None
    options = () if path is None else (("keyfile", str(path)),)
    key, warnings = find_any_key(TargetAddress("net", options=options), environment)
    for warning in warnings:
        say(f"kdbridge: {warning}")
    return key
