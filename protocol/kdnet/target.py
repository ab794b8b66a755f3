"""TargetChannel: a target's end of the datagrams. It pokes for ever, and takes the key of whoever answers (kdnet 4)."""

from __future__ import annotations

from collections.abc import Callable

from protocol.errors import RemoteProtocolError
from protocol.link import Discard, Role

from .control import NOWHERE, Endpoint, Poke, Response, data_key, decode_response
from .datagram import Channel, Cipher, Datagram, Sealer, flaw
from .facts import Address, KdnetFacts
from .key import ControlKey
from .packet import encode_connection_check
from .session import Renewal, Session

__all__ = ["POKE_INTERVAL", "TargetChannel"]

POKE_INTERVAL = 3.0
"""Seconds between two pokes, with a debugger or without (kdnet 4.5)."""

_CLIENT_KEY = 32
_SEQUENCE_STEP = 3
_CLIENT_KEYS = 2
_MOST_ACCEPTED = 8
_LEAST_PAUSE = 0.5
"""Between two pokes that somebody solicits."""


class TargetChannel:
    """The target's end. `random` gives so many bytes; the first call makes the client key of this life.

    `own` is the address the target believes to have, `host` where it was told to look for a debugger.
    """

    role = Role.TARGET

    def __init__(
        self,
        key: ControlKey,
        cipher: Cipher,
        random: Callable[[int], bytes],
        *,
        own: Endpoint,
        host: Address,
        version: int = 5,
    ) -> None:
        self.facts = KdnetFacts()
        self._version = version
        self._sealer = Sealer(key, cipher)
        self._random = random
        self._own = own
        self._host = host
        self._outbox: list[tuple[bytes, Address]] = []
        self._renewal: Renewal | None = None
        self._former_key: bytes | None = None
        self._next_poke: float | None = None
        self._poked_at = float("-inf")
        self._current: Session | None = None
        self.restart()

    def restart(self) -> None:
        """A new life: another client key, no session. The next poke is due at once."""
        first = self._random(_CLIENT_KEY)
        self._count, self._life = int.from_bytes(first[:8], "little"), first[8:]
        self._poke_sequence = _SEQUENCE_STEP
        self._client_keys: list[bytes] = []
        self._accepted: list[Response] = []
        self._bound = NOWHERE
        if self._current is not None:
            self._former_key = self._current.key
        self._current = None
        self._next_poke = None
        self._outbox.clear()

    @property
    def peer(self) -> Address | None:
        """Where the debugger is; None: there is none."""
        return None if self._current is None else self._current.peer

    @property
    def version(self) -> int:
        """The protocol version this target speaks."""
        return self._version

    def seal(self, payload: bytes) -> bytes | None:
        """The datagram for a KD packet; None: there is no session."""
        return None if self._current is None else self._current.seal(self._sealer, Role.TARGET, payload)

    def receive(self, raw: bytes, source: Address, now: float) -> bytes | None:
        """The KD packet in a datagram; None: nothing in it for the conversation."""
        self.facts.datagrams += 1
        problem = flaw(raw)
        if problem is not None:
            self.facts.discard(problem, raw, source)
        elif raw[5] == Channel.CONTROL:
            self._control(raw, source, now)
        else:
            return self._data(raw, source)
        return None

    def take_renewal(self) -> Renewal | None:
        """Whether what came last began a session."""
        renewal, self._renewal = self._renewal, None
        return renewal

    def take_control(self) -> list[tuple[bytes, Address]]:
        """Control datagrams to send, and where to."""
        out, self._outbox = self._outbox, []
        return out

    def connection_check(self) -> bytes:
        """What is said first in a session."""
        return encode_connection_check(self._bound)

    def next_timeout(self) -> float:
        """When the next poke is due; the first at once."""
        return float("-inf") if self._next_poke is None else self._next_poke

    def handle_timeout(self, now: float) -> None:
        """Poke, if it is time."""
        if now < self.next_timeout():
            return
        # On the beat; after a long pause one poke, not all that were missed.
        on_beat = now if self._next_poke is None else self._next_poke
        self._next_poke = max(on_beat, now - POKE_INTERVAL / 2) + POKE_INTERVAL
        self._poke(now)

    def _poke(self, now: float) -> None:
        client_key = self._count.to_bytes(8, "little") + self._life
        self._count = (self._count + 1) % (1 << 64)
        self._client_keys = [*self._client_keys[1 - _CLIENT_KEYS :], client_key]
        configured = Endpoint(self._host[0], self._host[1])
        payload = Poke(client_key, self._own, configured, self._bound).encode()
        poke = Datagram(self._version, Channel.CONTROL, False, self._poke_sequence, payload)
        self._poke_sequence += _SEQUENCE_STEP
        self._outbox.append((self._sealer.seal(poke, self._sealer.control_key), self._host))
        self._poked_at = now
        self.facts.pokes += 1

    def _data(self, raw: bytes, source: Address) -> bytes | None:
        current = self._current
        taken = None if current is None else current.take(self._sealer, Role.TARGET, raw)
        if isinstance(taken, bytes):
            return taken
        if taken is None:
            if self._former_key is not None and self._sealer.open(raw, self._former_key) is not None:
                taken = Discard.OLD_SESSION
            else:
                taken = Discard.NO_SESSION if current is None else Discard.NOT_AUTHENTIC
        self.facts.discard(taken, raw, source)
        return None

    def _control(self, raw: bytes, source: Address, now: float) -> None:
        opened = self._sealer.open(raw, self._sealer.control_key)
        if opened is None:
            self.facts.discard(Discard.NOT_AUTHENTIC, raw, source)
        elif not opened.from_host:
            self.facts.discard(Discard.REFLECTED, raw, source)
        elif not opened.payload:
            if now - self._poked_at >= _LEAST_PAUSE:
                self._next_poke = None
        else:
            try:
                response = decode_response(opened.payload)
            except RemoteProtocolError:
                self.facts.discard(Discard.MALFORMED_MESSAGE, raw, source)
                return
            refused = self._refuse(response)
            if refused is not None:
                self.facts.discard(refused, raw, source)
            else:
                self._begin(response, opened, source)

    def _refuse(self, response: Response) -> Discard | None:
        """Why this response is not taken: it answers none of the last pokes, or has been taken before."""
        if response in self._accepted:
            return Discard.REPLAYED
        return None if response.client_key in self._client_keys else Discard.STALE_RESPONSE

    def _begin(self, response: Response, opened: Datagram, source: Address) -> None:
        before = self._current
        if before is not None:
            self._former_key = before.key
        self._accepted = [*self._accepted[1 - _MOST_ACCEPTED :], response]
        # An answer to a poke before this one is older than this: whoever sends it now found it in a recording.
        self._client_keys = self._client_keys[self._client_keys.index(response.client_key) :]
        self._bound = Endpoint(source[0], source[1])
        self._current = Session(data_key(self._sealer.control_key, opened.payload), self._version, source)
        self._renewal = Renewal.FIRST if before is None else Renewal.REKEYED
        self.facts.responses += 1
        self.facts.sessions += 1
