"""Pokes and responses against real ones and made ones (kdnet 4)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import KdError, LocalProtocolError, RemoteProtocolError
from protocol.kdnet import Endpoint, Sealer, parse_key
from protocol.kdnet.control import NOWHERE, Poke, Response, data_key, decode_poke, decode_response
from tests.protocol.kdnet.aes import Aes
from tests.protocol.kdnet.recorded import KEY_TEXT, Frame


def _payloads(frames: list[Frame], kind: str) -> list[tuple[Frame, bytes]]:
    sealer = Sealer(parse_key(KEY_TEXT), Aes())
    found = []
    for frame in frames:
        if frame.said.get("kdnet_msg") == kind:
            opened = sealer.open(frame.datagram, sealer.control_key)
            assert opened is not None
            found.append((frame, opened.payload))
    return found


def _text(endpoint: Endpoint) -> str:
    return f"{endpoint.address}:{endpoint.port}"


def test_real_pokes_say_what_their_description_says(frames: list[Frame]) -> None:
    pokes = _payloads(frames, "poke")
    assert len(pokes) == 427
    for number, (frame, payload) in enumerate(pokes, start=1):
        poke = decode_poke(payload)
        assert poke.encode() == payload and len(payload) == 344
        assert poke.client_key.hex() == frame.said["client_key"]
        assert _text(poke.own) == frame.said["endpoint_self"]
        assert _text(poke.configured) == frame.said["endpoint_configured_host"]
        assert _text(poke.bound) == frame.said["endpoint_bound_host"]
        assert frame.said["kdnet_seq"] == 3 * number
    read = [decode_poke(payload) for _, payload in pokes]
    # One more each time, the other 24 bytes the same for the life of the target's stack (kdnet 4.1).
    assert [poke.count - read[0].count for poke in read] == list(range(427))
    assert {poke.life for poke in read} == {read[0].life}
    assert read[0].bound == NOWHERE and {_text(poke.bound) for poke in read[1:]} == {"192.168.2.1:51111"}


def test_the_real_response_says_what_its_description_says(frames: list[Frame], summary: dict[str, Any]) -> None:
    ((frame, payload),) = _payloads(frames, "response")
    response = decode_response(payload)
    assert response.client_key.hex() == frame.said["client_key"]
    assert response.host_key.hex() == frame.said["host_key"]
    assert response.encode() == payload and len(payload) == 322
    assert data_key(parse_key(KEY_TEXT).raw, payload).hex() == summary["meta"]["data_key_hex"]


def test_made_messages_come_back(summary: dict[str, Any]) -> None:
    made = {each["name"]: bytes.fromhex(each["payload_hex"]) for each in summary["synthetic_vectors"]["datagrams"]}
    poke = decode_poke(made["poke, no data channel yet"])
    assert poke == Poke(bytes(range(32)), Endpoint("192.0.2.10", 50000), Endpoint("192.0.2.1", 50000), NOWHERE)
    response = Response(bytes(range(32)), bytes(range(0x20, 0x40)))
    assert response.encode() == made["host response to that poke"]
    control_key = bytes.fromhex(summary["synthetic_vectors"]["control_key_hex"])
    assert data_key(control_key, response.encode()).hex() == summary["synthetic_vectors"]["data_key_hex"]


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("192.168.2.72", "00" * 10 + "ffff" + "c0a80248"),
        ("::ffff:192.168.2.72", "00" * 10 + "ffff" + "c0a80248"),
        ("2001:db8::10", "20010db8000000000000000000000010"),
        ("fe80::1%eth0", "fe800000000000000000000000000001"),
    ],
)
def test_an_endpoint_is_ipv6_or_mapped_ipv4_and_a_big_endian_port(text: str, raw: str) -> None:
    assert Endpoint(text, 0xC7A7).encode() == bytes.fromhex(raw) + b"\xc7\xa7"


@pytest.mark.parametrize(
    ("address", "link_local"),
    [("169.254.7.9", True), ("fe80::1", True), ("::ffff:169.254.7.9", True), ("192.168.2.72", False), ("::1", False)],
)
def test_whoever_got_no_lease_is_known_by_its_address(address: str, link_local: bool) -> None:
    assert Endpoint(address, 50000).is_link_local is link_local


@pytest.mark.parametrize("endpoint", [Endpoint("no address", 1), Endpoint("", 1), Endpoint("1.2.3.4", 65536)])
def test_an_endpoint_that_cannot_be_is_our_mistake(endpoint: Endpoint) -> None:
    with pytest.raises(LocalProtocolError):
        endpoint.encode()


def test_keys_have_32_bytes() -> None:
    with pytest.raises(LocalProtocolError, match="not 31"):
        Response(bytes(32), bytes(31))
    with pytest.raises(LocalProtocolError, match="not 33"):
        Poke(bytes(33), NOWHERE, NOWHERE, NOWHERE)


def test_a_poke_may_be_shorter_or_longer_but_for_its_endpoints() -> None:
    poke = Poke(bytes(range(32)), Endpoint("192.0.2.10", 1), Endpoint("2001:db8::1", 2), NOWHERE)
    assert decode_poke(poke.encode()[:88]) == poke
    assert decode_poke(poke.encode() + b"more of version 9") == poke
    with pytest.raises(RemoteProtocolError):
        decode_poke(poke.encode()[:87])


def test_one_is_not_taken_for_the_other() -> None:
    poke = Poke(bytes(32), NOWHERE, NOWHERE, NOWHERE)
    response = Response(bytes(32), bytes(32))
    with pytest.raises(RemoteProtocolError):
        decode_response(poke.encode())
    with pytest.raises(RemoteProtocolError):
        decode_poke(response.encode())
    with pytest.raises(RemoteProtocolError):
        decode_response(response.encode()[:-1])


@given(st.binary(max_size=400), st.sampled_from([b"", b"\x01\x01", b"\x01\x02"]))
def test_any_payload_is_a_message_or_a_named_error(tail: bytes, head: bytes) -> None:
    for decode in (decode_poke, decode_response):
        try:
            read = decode(head + tail)
        except KdError:
            continue
        assert read.client_key == (head + tail)[2:34]
