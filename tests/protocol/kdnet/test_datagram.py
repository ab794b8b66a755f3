"""Datagrams against made vectors and real ones (kdnet 2, 3, 15)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import KdError, LocalProtocolError
from protocol.kdnet import Channel, Datagram, Sealer, parse_key
from protocol.kdnet.control import data_key
from protocol.kdnet.datagram import KNOWN_VERSIONS, LARGEST_DATAGRAM, SMALLEST_DATAGRAM, flaw, largest_payload
from protocol.link import Discard
from tests.protocol.kdnet.aes import Aes
from tests.protocol.kdnet.recorded import KEY_TEXT, Frame

_VECTOR_KEY = "17890.af3489a.9345kjm.lio147"
_BREAK_IN = bytes.fromhex(
    "4d44424705001af1384cc6a93cfda3daab9536b454305c13117efc4ceccb5856a17ec30129c6"
)  # host, channel 0, seq 2
_DATA_KEY = bytes.fromhex("53544a5a7909bdd8f2602f20ee5b4cb6486fa84bee5a646fb12894295de31e71")


def _sealer(text: str = _VECTOR_KEY) -> Sealer:
    return Sealer(parse_key(text), Aes())


def test_made_vectors_pass_both_ways(summary: dict[str, Any]) -> None:
    vectors = summary["synthetic_vectors"]
    sealer = _sealer(vectors["key_text"])
    assert sealer.control_key.hex() == vectors["control_key_hex"]
    keys = {Channel.CONTROL: sealer.control_key, Channel.DATA: bytes.fromhex(vectors["data_key_hex"])}
    assert len(vectors["datagrams"]) == 12
    for vector in vectors["datagrams"]:
        raw = bytes.fromhex(vector["datagram_hex"])
        said = Datagram(
            vector["version"],
            vector["channel"],
            vector["dir_flag"] == 8,
            vector["seq"],
            bytes.fromhex(vector["payload_hex"]),
        )
        key = keys[vector["channel"]]
        assert sealer.seal(said, key) == raw, vector["name"]
        assert sealer.open(raw, key) == said, vector["name"]


def test_every_real_datagram_opens_agrees_and_seals_to_the_same_bytes(
    frames: list[Frame], summary: dict[str, Any]
) -> None:
    sealer = _sealer(KEY_TEXT)
    response = sealer.open(frames[1].datagram, sealer.control_key)
    assert response is not None
    key = data_key(sealer.control_key, response.payload)
    assert key.hex() == summary["meta"]["data_key_hex"]
    genuine = 0
    for frame in frames:
        said = frame.said
        under = sealer.control_key if said["channel"] == "control" else key
        opened = sealer.open(frame.datagram, under)
        assert opened is not None, f"frame {said['frame']} does not authenticate"
        genuine += 1
        assert opened.version == said["kdnet_version"] == 4
        assert Channel(opened.channel).name.lower() == said["channel"]
        assert opened.from_host is frame.from_host is (said["dir_flag"] == 8)
        assert opened.sequence == said["kdnet_seq"]
        assert hashlib.sha256(opened.payload).hexdigest() == said["payload_sha256"]
        assert -(8 + len(opened.payload)) % 16 == said["pad"]
        assert sealer.seal(opened, under) == frame.datagram
        # The other channel's key opens nothing.
        assert sealer.open(frame.datagram, key if under is sealer.control_key else sealer.control_key) is None
    assert genuine == 955


def test_no_real_datagram_opens_with_another_key(frames: list[Frame], summary: dict[str, Any]) -> None:
    sealer = _sealer("8.8.8.9")
    key = bytes.fromhex(summary["meta"]["data_key_hex"])
    for frame in frames:
        assert sealer.open(frame.datagram, sealer.control_key) is None
        assert sealer.open(frame.datagram, key) is None


@pytest.mark.parametrize("at", range(len(_BREAK_IN)))
def test_no_byte_of_a_datagram_may_differ(at: int) -> None:
    for bit in range(8):
        changed = bytearray(_BREAK_IN)
        changed[at] ^= 1 << bit
        try:
            assert _sealer().open(bytes(changed), _DATA_KEY) is None
        except KdError:
            assert at in range(6), "only the clear header is looked at before the tag"


def test_what_stands_in_the_padding_does_not_matter() -> None:
    cipher = Aes()
    sealer = Sealer(parse_key(_VECTOR_KEY), cipher)
    # Bits 4 to 6 set, padding of FF: authentic all the same, as only its maker can make it.
    plain = (7 << 8 | 0x80 | 0x70 | 4).to_bytes(8, "big") + b"four" + b"\xff" * 4
    tag = sealer._tag(b"MDBG\x05\x00" + plain)
    raw = b"MDBG\x05\x00" + cipher.encrypt_cbc(_DATA_KEY, tag, plain) + tag
    assert sealer.open(raw, _DATA_KEY) == Datagram(5, 0, True, 7, b"four")


def test_a_pad_longer_than_the_datagram_leaves_nothing() -> None:
    cipher = Aes()
    sealer = Sealer(parse_key(_VECTOR_KEY), cipher)
    plain = (7 << 8 | 15).to_bytes(8, "big") + bytes(8)
    tag = sealer._tag(b"MDBG\x05\x00" + plain)
    raw = b"MDBG\x05\x00" + cipher.encrypt_cbc(_DATA_KEY, tag, plain) + tag
    assert sealer.open(raw, _DATA_KEY) == Datagram(5, 0, False, 7, b"")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Discard.NOT_KDNET),
        (b"MDB", Discard.NOT_KDNET),
        (b"GBDM\x05\x00" + bytes(32), Discard.NOT_KDNET),
        (b"MDBG", Discard.BAD_DATAGRAM),
        (b"MDBG\x05\x00" + bytes(16), Discard.BAD_DATAGRAM),
        (b"MDBG\x05\x00" + bytes(33), Discard.BAD_DATAGRAM),
        (b"MDBG\x05\x02" + bytes(32), Discard.BAD_DATAGRAM),
        (b"MDBG\x05\x00" + bytes(32), None),
        (b"MDBG\xff\x01" + bytes(32), None),
    ],
)
def test_what_can_be_no_datagram_is_known_at_a_glance(raw: bytes, reason: Discard | None) -> None:
    assert flaw(raw) is reason
    if reason is not None:
        with pytest.raises(KdError):
            _sealer().open(raw, _DATA_KEY)


def test_sizes_are_22_and_blocks_of_16() -> None:
    # kdnet 2: the smallest has 38 bytes; 374 a poke, 358 a response, 1334 a CONTEXT of 1,288 bytes.
    assert SMALLEST_DATAGRAM == 38
    sizes = {344: 374, 322: 358, 1: 38, 0: 38, 16: 54, 12: 54, 72: 102, 1304: 1334, 1168: 1206, 256: 294}
    for payload, size in sizes.items():
        raw = _sealer().seal(Datagram(5, 0, True, 1, bytes(payload)), _DATA_KEY)
        assert len(raw) == size, f"a payload of {payload} bytes"
    assert flaw(b"MDBG\x05\x00" + bytes(LARGEST_DATAGRAM - 6)) is None
    assert flaw(b"MDBG\x05\x00" + bytes(LARGEST_DATAGRAM + 10)) is Discard.BAD_DATAGRAM


def test_what_a_version_is_known_to_carry() -> None:
    # kdnet 6; of a version that nobody has seen the least is hoped for.
    assert {version: largest_payload(version) for version in (2, 4, 5)} == {2: 1288, 4: 1288, 5: 1152}
    assert largest_payload(0) == largest_payload(9) == 1152
    assert {2, 4, 5} == KNOWN_VERSIONS


@pytest.mark.parametrize("sequence", [-1, 1 << 56])
def test_a_sequence_number_has_56_bits(sequence: int) -> None:
    with pytest.raises(LocalProtocolError, match="56 bits"):
        _sealer().seal(Datagram(5, 0, True, sequence, b""), _DATA_KEY)


@given(
    st.integers(0, 255),
    st.sampled_from(Channel),
    st.booleans(),
    st.integers(0, (1 << 56) - 1),
    st.binary(max_size=200),
    st.binary(min_size=32, max_size=32),
)
def test_whatever_is_sealed_opens(
    version: int, channel: Channel, from_host: bool, sequence: int, payload: bytes, key: bytes
) -> None:
    said = Datagram(version, channel, from_host, sequence, payload)
    raw = _sealer().seal(said, key)
    assert (len(raw) - 22) % 16 == 0
    assert _sealer().open(raw, key) == said


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_refused_by_name(tail: bytes, magic: bool) -> None:
    raw = b"MDBG" + tail if magic else tail
    try:
        assert _sealer().open(raw, _DATA_KEY) is None
    except KdError:
        assert flaw(raw) is not None
