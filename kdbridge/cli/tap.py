"""kdbridge tap: stands between a debugger and its target, and shows what they say."""

from __future__ import annotations

import os
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import click
import trio

from kdbridge.capture.conversation import Conversation
from kdbridge.capture.frames import HOST, TARGET, Frame, Medium
from kdbridge.capture.record import Recorder
from kdbridge.capture.relay import bind_datagrams, relay_datagrams, relay_line
from kdbridge.errors import UsageError
from kdbridge.transports import TargetAddress, Transport, masked, open_transport, parse_target
from kdbridge.transports.net_key import VARIABLE, find_any_key
from kdbridge.transports.net_waiting import show_address
from kdbridge.transports.pty import PtyTransport, open_pty
from kdbridge.transports.stream import ListenTransport
from kdbridge.transports.tap import Tap
from protocol.kdnet import Address, ControlKey

from .output import tell
from .packets import packet_line
from .run import Interrupted, run, say

__all__ = ["tap_command"]

_FORMS = (
    "for a line: pty:, tcp-listen:127.0.0.1:5004, unix-listen:PATH, or a port that leads to the debugger's machine; "
    "for a network: udp:HOST:PORT, where the debugger listens"
)


@click.command("tap", short_help="Stand between WinDbg and a target, and show what they say.")
@click.argument("debugger", metavar="DEBUGGER")
@click.argument("target", metavar="TARGET")
@click.option(
    "--record", type=click.Path(path_type=Path), metavar="FILE.pcapng", help="Record it too, into this new file."
)
@click.option("--quiet", is_flag=True, help="Show nothing of what they say; only record.")
def tap_command(debugger: str, target: str, record: Path | None, quiet: bool) -> int:
    """Stand between a debugger and its target: all goes through unchanged, and is shown decoded, a line a packet.

    DEBUGGER is where the debugger is: pty: (or pty:PATH), tcp-listen:HOST:PORT and unix-listen:PATH wait for it;
    udp:HOST:PORT is where it listens for KDNET. TARGET is the target's address, as for every other verb; with udp:
    it is net:port=50000,key=w.x.y.z: the target pokes this machine, and what it says is carried on. Without the key
    it is carried on all the same, and cannot be shown. Ctrl-C ends it.
    """
    network = debugger.lower().startswith("udp:")
    if (parse_target(target).scheme == "net") != network:
        raise UsageError(f"{debugger} and {masked(target)} do not go together: net: goes with udp:HOST:PORT. {_FORMS}")
    if not network and not debugger.lower().startswith("pty:"):
        parse_target(debugger)

    async def main() -> int:
        async with AsyncExitStack() as stack:
            recorder = None if record is None else Recorder(record, name=masked(target), tell=say)
            if recorder is not None:
                stack.callback(recorder.close)
            if network:
                await _network(debugger, parse_target(target), recorder, quiet)
            else:
                await _line(debugger, target, recorder, quiet, stack)
        return 0

    try:
        return run(main)
    except Interrupted:
        # This is how a tap ends.
        say("the tap ends" + (f"; what went by is in {record}" if record is not None else ""))
        return 0


async def _line(debugger: str, target: str, recorder: Recorder | None, quiet: bool, stack: AsyncExitStack) -> None:
    way = await open_transport(target)
    stack.push_async_callback(way.aclose)
    for note in way.notes:
        say(note)
    side = await _debuggers_side(debugger)
    say(f"the debugger connects to {side.url}")
    more = _again if isinstance(side, (ListenTransport, PtyTransport)) else None
    await relay_line(side, way, _Shown(recorder, None, quiet).tap, say, more)


async def _debuggers_side(text: str) -> Transport:
    return open_pty(text) if text.lower().startswith("pty:") else await open_transport(text)


async def _again(side: Transport) -> Transport:
    """The next debugger's side, where the last one's was. A terminal is there as long as the tap."""
    if isinstance(side, PtyTransport):
        return side
    await side.aclose()
    return await open_transport(side.url)


async def _network(debugger: str, target: TargetAddress, recorder: Recorder | None, quiet: bool) -> None:
    host = await _resolved(debugger)
    key, notes = find_any_key(target, os.environ)
    for note in notes:
        say(note)
    bound = await bind_datagrams(target)
    try:
        own = bound.getsockname()
        say(f"targets poke port {own[1]} (UDP) of this machine; what they say goes to {show_address(host)}")
        if key is None:
            say(f"there is no key (key=w.x.y.z in the target's address, or {VARIABLE}): what is said cannot be shown")
        await relay_datagrams(bound, host, _Shown(recorder, key, quiet).tap, say)
    finally:
        bound.close()


async def _resolved(text: str) -> Address:
    host, colon, port = text.partition(":")[2].rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 0xFFFF:
        raise UsageError(f"{text!r} does not say where the debugger listens; write udp:127.0.0.1:50001")
    try:
        found = await trio.socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        raise UsageError(f"{text!r}: the host {host} is not known") from None
    return cast("Address", found[0][4])


class _Shown:
    """Shows each packet as it comes, and records what it came in."""

    def __init__(self, recorder: Recorder | None, key: ControlKey | None, quiet: bool) -> None:
        self._recorder = recorder
        self._conversation = None if quiet else Conversation(key)
        self._start = trio.current_time()

    @property
    def tap(self) -> Tap:
        """What is put between the two."""
        return Tap(self._stream, self._datagram)

    def _stream(self, to_target: bool, data: bytes) -> None:
        if self._recorder is not None:
            self._recorder.serial(to_target, data)
        source, destination = (HOST, TARGET) if to_target else (TARGET, HOST)
        self._show(Frame(trio.current_time(), to_target, data, Medium.SERIAL, source, destination))

    def _datagram(self, source: Address, destination: Address, data: bytes) -> None:
        if self._recorder is not None:
            self._recorder.datagram(source, destination, data)
        self._show(
            Frame(trio.current_time(), None, data, Medium.NETWORK, show_address(source), show_address(destination))
        )

    def _show(self, frame: Frame) -> None:
        if self._conversation is None:
            return
        try:
            for packet in self._conversation.feed(frame):
                tell(packet_line(packet, self._start))
        except OSError:
            # Whoever reads has gone. The two that talk must not notice.
            self._conversation = None
            say("nobody reads what is shown any more; the tap goes on without")
