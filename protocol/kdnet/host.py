"""HostChannel: a debugger's end of the datagrams. Which poke to answer, which key is in use, who the peer is.

A response alone changes nothing here: its key is kept ready beside the one in use, until a datagram authenticates
under it. So a recorded poke played back costs one response and never the session, and a response that got lost
costs nothing (kdnet 4.6, 4.7).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from protocol.errors import RemoteProtocolError
from protocol.link import Discard, Role

from .control import Poke, Response, data_key, decode_poke
from .datagram import Channel, Cipher, Datagram, Sealer, flaw
from .facts import Address, KdnetFacts
from .key import ControlKey
from .session import Renewal, Session

__all__ = ["HostChannel"]

_HOST_KEY = 32
_MOST_OFFERS = 4
_MOST_LIVES = 16
_OFFER_LASTS = 10.0
_REPETITION = 1.0
"""The same poke again within this time is a copy that the network made; a target pokes every 3 s."""
_SILENCE = 10.0
"""Without three pokes in a row a target is taken for gone."""
_LONG_SILENCE = 60.0
"""The same, when somebody at another address pokes: ours may be writing its dump meanwhile, and say nothing."""
_ANY_VERSION = 5


class _Verdict(enum.Enum):
    ANSWER = "we have no session, or the target has none"
    OURS = "our session goes on: an answer would take its key away"


@dataclass(slots=True, eq=False)
class _Offer:
    """A response that was sent, and the session that begins when the target uses its key."""

    session: Session
    life: bytes
    at: float
    over: Session | None
    """The session that was in use when it was sent."""


@dataclass(slots=True)
class _Life:
    """A target's network stack, by what its client keys have in common."""

    newest: int = 0
    """The count of its last poke."""
    answered_at: float = float("-inf")


class HostChannel:
    """The debugger's end. `random` gives so many bytes nobody can guess: it makes the session keys."""

    role = Role.HOST

    def __init__(self, key: ControlKey, cipher: Cipher, random: Callable[[int], bytes]) -> None:
        self.facts = KdnetFacts()
        self._sealer = Sealer(key, cipher)
        self._random = random
        self._outbox: list[tuple[bytes, Address]] = []
        self._current: Session | None = None
        self._life = b""
        self._heard_at = float("-inf")
        self._former_key: bytes | None = None
        self._offers: list[_Offer] = []
        self._lives: dict[bytes, _Life] = {}
        self._renewal: Renewal | None = None
        self._solicited = 0

    @property
    def peer(self) -> Address | None:
        """Where the target is; None: there is no session."""
        return None if self._current is None else self._current.peer

    @property
    def version(self) -> int | None:
        """The target's protocol version; None: there is no session."""
        return None if self._current is None else self._current.version

    def seal(self, payload: bytes) -> bytes | None:
        """The datagram for a KD packet; None: there is no session."""
        return None if self._current is None else self._current.seal(self._sealer, Role.HOST, payload)

    def receive(self, raw: bytes, source: Address, now: float) -> bytes | None:
        """The KD packet in a datagram; None: nothing in it for the conversation."""
        self.facts.datagrams += 1
        problem = flaw(raw)
        if problem is not None:
            self.facts.discard(problem, raw, source)
        elif raw[5] == Channel.CONTROL:
            self._control(raw, source, now)
        else:
            return self._data(raw, source, now)
        return None

    def take_renewal(self) -> Renewal | None:
        """Whether what came last was the first under a new key."""
        renewal, self._renewal = self._renewal, None
        return renewal

    def take_control(self) -> list[tuple[bytes, Address]]:
        """Control datagrams to send, and where to."""
        out, self._outbox = self._outbox, []
        return out

    def next_timeout(self) -> float | None:
        """A debugger waits as long as it takes."""
        return None

    def handle_timeout(self, now: float) -> None:
        """Nothing is due, ever."""

    def solicit(self, destination: Address) -> None:
        """Ask whoever is there to poke at once, by an empty control message (kdnet 4.3, seen by others only)."""
        self._solicited += 1
        version = _ANY_VERSION if self._current is None else self._current.version
        empty = Datagram(version, Channel.CONTROL, True, self._solicited, b"")
        self._outbox.append((self._sealer.seal(empty, self._sealer.control_key), destination))

    # ---- data ----------------------------------------------------------------------------------------------

    def _data(self, raw: bytes, source: Address, now: float) -> bytes | None:
        current = self._current
        if current is not None:
            taken = current.take(self._sealer, Role.HOST, raw)
            if taken is not None:
                return self._accept(taken, raw, source, now)
        self._offers = [offer for offer in self._offers if now - offer.at <= _OFFER_LASTS]
        for offer in reversed(self._offers):
            taken = offer.session.take(self._sealer, Role.HOST, raw)
            if taken is not None:
                if isinstance(taken, bytes):
                    if self._is_other_machine(offer.life, offer.session.peer, now):
                        taken = Discard.OTHER_MACHINE
                    else:
                        self._commit(offer)
                return self._accept(taken, raw, source, now)
        if self._former_key is not None and self._sealer.open(raw, self._former_key) is not None:
            reason = Discard.OLD_SESSION
        else:
            # Without a session nobody can tell whether it is genuine: its key was agreed with somebody else.
            reason = Discard.NO_SESSION if current is None else Discard.NOT_AUTHENTIC
        self.facts.discard(reason, raw, source)
        return None

    def _accept(self, taken: bytes | Discard, raw: bytes, source: Address, now: float) -> bytes | None:
        if isinstance(taken, Discard):
            self.facts.discard(taken, raw, source)
            return None
        self._heard(source, now)
        return taken

    def _heard(self, source: Address, now: float) -> None:
        self._heard_at = now
        current = self._current
        if current is not None and current.peer != source:
            current.peer = source
            self.facts.moves += 1

    def _commit(self, offer: _Offer) -> None:
        before = self._current
        if before is None:
            self._renewal = Renewal.FIRST
        elif offer.over is before or offer.life != self._life:
            self._renewal = Renewal.RESTARTED
            self.facts.restarts += 1
        else:
            # Two responses to one life, both accepted in turn.
            self._renewal = Renewal.REKEYED
        if before is not None:
            self._former_key = before.key
        self.facts.sessions += 1
        self._current, self._life = offer.session, offer.life
        # A later answer to the same target may still be taken up; what another machine says is to be known as such.
        older = self._offers[: self._offers.index(offer)]
        newer = self._offers[len(older) + 1 :]
        self._offers = [each for each in older if each.session.peer[0] != offer.session.peer[0]] + newer

    # ---- control -------------------------------------------------------------------------------------------

    def _control(self, raw: bytes, source: Address, now: float) -> None:
        opened = self._sealer.open(raw, self._sealer.control_key)
        if opened is None:
            self.facts.discard(Discard.NOT_AUTHENTIC, raw, source)
            return
        if opened.from_host:
            self.facts.discard(Discard.REFLECTED, raw, source)
            return
        try:
            poke = decode_poke(opened.payload)
        except RemoteProtocolError:
            self.facts.discard(Discard.MALFORMED_MESSAGE, raw, source)
            return
        verdict = self._judge(poke, source, now)
        if verdict is not Discard.REPLAYED:
            self.facts.saw_poke(source, poke, opened.version, now)
        if isinstance(verdict, Discard):
            self.facts.discard(verdict, raw, source)
            return
        self._remember(poke)
        if verdict is _Verdict.ANSWER:
            self._answer(opened, poke, source, now)
        else:
            self.facts.keep_alives += 1
            if poke.life == self._life:
                self._heard(source, now)

    def _judge(self, poke: Poke, source: Address, now: float) -> _Verdict | Discard:
        """What a genuine poke asks for (kdnet 4.6)."""
        life = self._lives.get(poke.life)
        current = self._current
        silence = now - self._heard_at
        repeated = life is not None and poke.count <= life.newest
        if life is not None and repeated:
            # A machine set back to an earlier snapshot repeats its pokes: believed when nothing else is heard.
            in_session = current is not None and silence <= _SILENCE
            if in_session or now - life.answered_at < _REPETITION:
                return Discard.REPLAYED
        if current is None:
            return _Verdict.ANSWER
        if poke.life == self._life and not repeated:
            return _Verdict.OURS if poke.bound.port else _Verdict.ANSWER
        if self._is_other_machine(poke.life, source, now):
            return Discard.OTHER_MACHINE
        return _Verdict.OURS if poke.bound.port and silence <= _SILENCE else _Verdict.ANSWER

    def _is_other_machine(self, life: bytes, source: Address, now: float) -> bool:
        if self._current is None or life == self._life or source[0] == self._current.peer[0]:
            return False
        return now - self._heard_at <= _LONG_SILENCE

    def _remember(self, poke: Poke) -> None:
        life = self._lives.pop(poke.life, None) or _Life()
        life.newest = poke.count
        if len(self._lives) >= _MOST_LIVES:
            del self._lives[next(iter(self._lives))]
        self._lives[poke.life] = life

    def _answer(self, asked: Datagram, poke: Poke, source: Address, now: float) -> None:
        payload = Response(poke.client_key, self._random(_HOST_KEY)).encode()
        answer = Datagram(asked.version, Channel.CONTROL, True, asked.sequence, payload)
        self._outbox.append((self._sealer.seal(answer, self._sealer.control_key), source))
        self.facts.responses += 1
        self._lives[poke.life].answered_at = now
        session = Session(data_key(self._sealer.control_key, payload), asked.version, source)
        self._offers = [*self._offers[1 - _MOST_OFFERS :], _Offer(session, poke.life, now, self._current)]
