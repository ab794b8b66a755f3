"""A stub that talks out of turn: prints, repeats, resets and late replies between a request and its answer.

Made for these tests alone: its memory is bytes, and of the project's code it uses packets and the target's link only.
"""

from __future__ import annotations

import random
import struct
from collections import Counter, deque
from collections.abc import Callable

from protocol.kdcom import KdcomLink
from protocol.link import LinkTimers, PacketAcknowledged, PacketReceived, ResendAsked, Role
from protocol.packet import encode_control
from tests.raw import A, change_bytes
from tests.small_machine import KERNEL, version_of_19041

__all__ = ["Chatty"]

_READ, _VERSION = 0x3130, 0x3146
_RESET = encode_control(6, 0xDEADBEEF)


class Chatty:
    """A stopped target over some bytes at KERNEL. `seed` decides what it says besides answers, `how_often` how much."""

    def __init__(self, memory: bytes, seed: int, how_often: float) -> None:
        self.memory = memory
        self.rng = random.Random(f"chatty {seed}")
        self.how_often = how_often
        self.link = KdcomLink(Role.TARGET, LinkTimers(tries=0))
        self.told: Counter[str] = Counter()
        self._queue: deque[Callable[[float], bytes | None]] = deque()
        self._raw: list[bytes] = []
        self._last_reply = b""
        self._started = False

    # ---- what a target on a line has ---------------------------------------------------------------------------

    def receive_data(self, chunk: bytes, now: float) -> None:
        self.link.receive_data(chunk, now)
        self._drain(now)

    def data_to_send(self) -> list[bytes]:
        out = [*self._raw, *self.link.data_to_send()]
        self._raw.clear()
        if out and self.rng.random() < self.how_often / 4:
            # The line hands over what it had once more.
            self.told["duplicate"] += 1
            out += out[-1:]
        return out

    def next_timeout(self) -> float | None:
        return self.link.next_timeout() if self._started else 0.0

    def handle_timeout(self, now: float) -> None:
        if not self._started:
            self._started = True
            self.say(7, change_bytes(), now)
        self.link.handle_timeout(now)
        self._drain(now)

    # ---- what it says --------------------------------------------------------------------------------------------

    def say(self, packet_type: int, payload: bytes, now: float) -> None:
        self._queue.append(lambda at: self.link.send_packet(packet_type, payload, at, tries=0))
        self._next(now)

    def _next(self, now: float) -> None:
        while self._queue and self.link.idle:
            self._queue.popleft()(now)

    def _drain(self, now: float) -> None:
        while (event := self.link.next_event()) is not None:
            if isinstance(event, PacketReceived):
                self._answer(event.payload, now)
            elif isinstance(event, ResendAsked):
                self.say(7, change_bytes(), now)
            elif isinstance(event, PacketAcknowledged):
                self._next(now)

    def _answer(self, request: bytes, now: float) -> None:
        (api,) = struct.unpack_from("<I", request)
        reply = bytearray(request[:56])
        if api == _VERSION:
            reply[16:56] = version_of_19041().encode()
        elif api == _READ:
            address, count = struct.unpack_from("<QI", request, 16)
            at = address - KERNEL
            data = self.memory[at : at + min(count, 3944)] if 0 <= at < len(self.memory) else b""
            struct.pack_into("<I", reply, 8, 0 if data else 0xC0000001)
            struct.pack_into("<I", reply, 28, len(data))
            reply += data
        else:
            struct.pack_into("<I", reply, 8, 0xC0000001)
        for _ in range(3):
            if self.rng.random() < self.how_often:
                self._talk(now)
        self.say(2, bytes(reply), now)
        self._last_reply = bytes(reply)
        if self.rng.random() < self.how_often:
            self._talk(now)

    def _talk(self, now: float) -> None:
        kind = self.rng.choice(["print", "print", "state change", "late reply", "reset"])
        self.told[kind] += 1
        if kind == "print":
            text = self.rng.randbytes(self.rng.randrange(1, 300))
            self.say(3, struct.pack("<IHHII", 0x3230, 6, 0, len(text), 0) + text, now)
        elif kind == "state change":
            self.say(7, change_bytes(), now)
        elif kind == "late reply" and self._last_reply:
            self.say(2, self._last_reply, now)
        elif kind == "reset":
            self._queue.append(self._restart)
            self.say(7, change_bytes(), now)

    def _restart(self, now: float) -> None:
        """Begin the stream anew, without having been asked."""
        self._raw += [*self.link.data_to_send(), _RESET]
        self.link.continue_session(A, A)
