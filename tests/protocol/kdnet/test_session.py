"""One key's life: what is new, what is repeated, what is our own."""

from __future__ import annotations

import pytest

from protocol.kdnet import Channel, Datagram, Sealer
from protocol.kdnet.session import Session
from protocol.link import Discard, Role
from tests.protocol.kdnet.aes import Aes
from tests.protocol.kdnet.ends import KEY, TARGET_AT

_KEY = bytes(range(32))


def _sealer() -> Sealer:
    return Sealer(KEY, Aes())


def _from(role: Role, sequence: int, payload: bytes = b"b", key: bytes = _KEY) -> bytes:
    return _sealer().seal(Datagram(5, Channel.DATA, role is Role.HOST, sequence, payload), key)


def test_each_datagram_has_the_next_number_beginning_with_1() -> None:
    session = Session(_KEY, 4, TARGET_AT)
    opened = [_sealer().open(session.seal(_sealer(), Role.HOST, b"same"), _KEY) for _ in range(3)]
    assert opened == [Datagram(4, 0, True, number, b"same") for number in (1, 2, 3)]


@pytest.mark.parametrize("role", list(Role))
def test_what_is_not_above_the_highest_is_dropped(role: Role) -> None:
    other = Role.TARGET if role is Role.HOST else Role.HOST
    session = Session(_KEY, 5, TARGET_AT)
    taken = [session.take(_sealer(), role, _from(other, sequence)) for sequence in (1, 1, 5, 4, 2, 5, 6)]
    again = Discard.REPLAYED
    assert taken == [b"b", again, b"b", again, again, again, b"b"], "a gap is no fault, a step back is"


@pytest.mark.parametrize("role", list(Role))
def test_our_own_direction_is_dropped(role: Role) -> None:
    session = Session(_KEY, 5, TARGET_AT)
    assert session.take(_sealer(), role, _from(role, 9)) is Discard.REFLECTED
    assert session.received == 0


def test_another_key_is_none_of_its_business() -> None:
    session = Session(_KEY, 5, TARGET_AT)
    assert session.take(_sealer(), Role.HOST, _from(Role.TARGET, 1, key=bytes(32))) is None
    assert session.received == 0
