"""How often a damaged packet is asked for again: on a line that damages every one of them, asking never ends."""

from __future__ import annotations

from .link import Role
from .packet import PacketType, encode_control

__all__ = ["Resends"]

_AT_ONCE = 16
"""So many in a row before it gets slower: more than chance needs on a line that still carries something."""
_HOPELESS = 8
"""Copies of a reply: where so many in a row came damaged, the next hardly comes whole."""
_PAUSE = 0.25
"""Seconds between two then. What is not asked for comes by the target's own timer, after about a second (1.8)."""


class Resends:
    """RESENDs in a row. A target never tires of asking (kd-protocol 1.7); a host does, or both would talk for ever."""

    __slots__ = ("_asked_at", "_in_a_row", "_spoilt", "_tires")

    def __init__(self, role: Role) -> None:
        self._tires = role is Role.HOST
        self._in_a_row = self._spoilt = 0
        self._asked_at = float("-inf")

    def ask(self, now: float) -> list[bytes]:
        """A packet came damaged: RESEND, or nothing where that was asked too often."""
        self._in_a_row += 1
        if self._tires and self._in_a_row > _AT_ONCE and now < self._asked_at + _PAUSE:
            return []
        self._asked_at = now
        return [encode_control(PacketType.RESEND)]

    def settle(self) -> None:
        """A packet came whole."""
        self._in_a_row = self._spoilt = 0

    def spoilt(self, packet: tuple[int, int] | None, expected: int | None) -> None:
        """What came damaged had this type and id in its header: was it a copy of the reply that is waited for?"""
        self._spoilt += self._tires and packet == (PacketType.STATE_MANIPULATE, expected)

    def forget(self) -> None:
        """Both ends begin anew: nothing that came damaged comes again."""
        self._spoilt = 0

    @property
    def hopeless(self) -> bool:
        """So many copies of a reply came damaged that it is better to ask for less."""
        return self._spoilt >= _HOPELESS
