"""KDNET overheard: datagrams opened with the key, data keys taken from responses, and sequence numbers watched."""

from __future__ import annotations

from dataclasses import dataclass, field

from kdbridge.cipher import AesCbc
from protocol.errors import RemoteProtocolError
from protocol.kdnet import Channel, ControlKey, Datagram, Sealer
from protocol.kdnet.control import Poke, Response, data_key, decode_poke, decode_response
from protocol.link import Discard

from .decoded import Odd, Oddity
from .frames import Frame, Medium
from .talk import Talk

__all__ = ["Keyring", "OverheardSession"]

_MOST_SESSIONS = 64
_MOST_MISSING = 4096


@dataclass(slots=True)
class _Count:
    """Sequence numbers one way."""

    highest: int = 0
    missing: set[int] = field(default_factory=set)

    def judge(self, sequence: int) -> Oddity | None:
        """What is odd about the next one."""
        if sequence > self.highest:
            lost = sequence - self.highest - 1
            if lost <= _MOST_MISSING - len(self.missing):
                self.missing.update(range(self.highest + 1, sequence))
            first, self.highest = self.highest + 1, sequence
            if not lost:
                return None
            which = f"{first}" if lost == 1 else f"{first} to {sequence - 1}"
            return Oddity(Odd.GAP, f"{lost} datagram{'s' if lost > 1 else ''} before it missing, sequence {which}")
        if sequence in self.missing:
            self.missing.discard(sequence)
            text = f"late: sequence {sequence} comes after {self.highest}"
        else:
            text = f"sequence {sequence} was there before: repeated by the network, or played back"
        return Oddity(Odd.DISCARD, text, Discard.REPLAYED)


class OverheardSession:
    """One data key's life, as a third party hears it."""

    def __init__(self, number: int, key: bytes, response: Frame) -> None:
        self.number = number
        self.talk = Talk(Medium.NETWORK)
        self._key = key
        self._host, self._target = response.source, response.destination
        self._counts = {True: _Count(), False: _Count()}

    def open(self, sealer: Sealer, raw: bytes) -> Datagram | None:
        """The datagram, where it is of this session."""
        return sealer.open(raw, self._key)

    def seal(self, sealer: Sealer, datagram: Datagram) -> bytes:
        """The bytes of a data datagram under this session's key."""
        return sealer.seal(datagram, self._key)

    def judge(self, frame: Frame, opened: Datagram) -> list[Oddity]:
        """What is odd about where it comes from and about its number."""
        oddities: list[Oddity] = []
        ours, other = (self._host, self._target) if opened.from_host else (self._target, self._host)
        if frame.source == other != ours:
            oddities.append(Oddity(Odd.DISCARD, f"{other} sends what its peer sent: a reflection", Discard.REFLECTED))
            return oddities
        if frame.source != ours and not opened.from_host:
            oddities.append(Oddity(Odd.MOVED, f"the target is at {frame.source} now, not {ours}"))
            self._target = frame.source
        count = self._counts[opened.from_host].judge(opened.sequence)
        if count is not None:
            oddities.append(count)
        return oddities


class Keyring:
    """The key of a target, and every data key that a capture shows being made with it."""

    def __init__(self, key: ControlKey) -> None:
        self._sealer = Sealer(key, AesCbc())
        self._sessions: list[OverheardSession] = []
        self._number = 0
        self.genuine = 0
        """Datagrams that authenticated: more than none, and the key is the right one."""

    @property
    def has_session(self) -> bool:
        """Whether a response was seen, and so a data key."""
        return bool(self._sessions)

    def open(self, raw: bytes) -> tuple[Datagram, OverheardSession | None] | None:
        """What an intact datagram says, and of which session it is; None: it authenticates under no key known here."""
        opened, session = None, None
        if raw[5] == Channel.CONTROL:
            opened = self._sealer.open(raw, self._sealer.control_key)
        else:
            for session in reversed(self._sessions):
                opened = session.open(self._sealer, raw)
                if opened is not None:
                    break
        if opened is None:
            return None
        self.genuine += 1
        return opened, session

    def seal(self, datagram: Datagram) -> bytes | None:
        """The bytes of a datagram, data under the newest session's key; None: there is no session."""
        if datagram.channel == Channel.CONTROL:
            return self._sealer.seal(datagram, self._sealer.control_key)
        return self._sessions[-1].seal(self._sealer, datagram) if self._sessions else None

    def control(self, frame: Frame, opened: Datagram) -> Poke | Response | None:
        """The message of a control datagram; a response begins a session. None: it is empty, or makes no sense."""
        try:
            if not opened.from_host:
                return decode_poke(opened.payload)
            response = decode_response(opened.payload)
        except RemoteProtocolError:
            return None
        self._number += 1
        key = data_key(self._sealer.control_key, opened.payload)
        self._sessions = [*self._sessions[1 - _MOST_SESSIONS :], OverheardSession(self._number, key, frame)]
        return response

    @property
    def latest(self) -> int:
        """The number of the newest session; 0: there is none."""
        return self._number
