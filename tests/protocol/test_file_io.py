"""File requests: the layout of kd-protocol 4.2, and how a real WinDbg declines them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.file_io import HEADER_SIZE, FileIo, FileIoApi
from protocol.ntstatus import STATUS_NO_SUCH_FILE
from tests.protocol.kdnet_capture import Captured

_PATH = "\\Windows\\system32\\en-GB\\winload.efi.MUI"


def test_numbers_of_the_reference() -> None:
    assert [int(api) for api in FileIoApi] == [0x3430, 0x3431, 0x3432, 0x3433]
    assert (HEADER_SIZE, STATUS_NO_SUCH_FILE) == (0x40, 0xC000000F)


def test_a_real_loader_s_requests_and_windbg_s_answers(captured: list[Captured]) -> None:
    packets = [packet for packet in captured if packet.packet_type == 11]
    asked = [packet for packet in packets if not packet.from_host]
    answered = [packet for packet in packets if packet.from_host]
    assert len(asked) == len(answered) == 33
    for question, answer in zip(asked, answered, strict=True):
        request, said = FileIo.decode(question.payload), question.params
        assert request.encode() == question.payload
        assert (request.api, request.status, request.path) == (0x3430, said["status"], said["path"])
        # What we say when we decline are WinDbg's own bytes.
        assert request.decline(STATUS_NO_SUCH_FILE).encode() == answer.payload
        reply = FileIo.decode(answer.payload)
        assert (reply.status, reply.data, reply.path) == (0xC000000F, b"", "")
    # Ours is the same request, but for the loader's garbage behind the fields and the NUL that both end in.
    ours = FileIo.create(_PATH).encode()
    assert asked[0].params["path"] == _PATH
    assert ours[:0x1C] == asked[0].payload[:0x1C] and ours[0x20:0x30] == asked[0].payload[0x20:0x30]
    assert ours[0x40:] == asked[0].payload[0x40:] == _PATH.encode("utf-16-le") + b"\0\0"


def test_transfers_stand_where_the_reference_says() -> None:
    raw = FileIo.transfer(FileIoApi.READ_FILE, 0x1122334455667788, 0x99AABBCCDDEEFF00, 0xFA0 - 0x40).encode()
    assert len(raw) == HEADER_SIZE
    assert struct.unpack_from("<IIQQI", raw) == (0x3431, 0, 0x1122334455667788, 0x99AABBCCDDEEFF00, 3936)
    assert raw[0x1C:] == bytes(0x24)
    written = FileIo.transfer(FileIoApi.WRITE_FILE, 1, 0, 3, b"abc")
    assert (written.api, written.encode()[0x40:], written.path) == (0x3432, b"abc", "")


def test_a_refusal_echoes_everything_but_status_and_data() -> None:
    header = struct.pack("<I", 0x3431) + bytes(range(4, 64))
    refused = FileIo(header, b"data").decline(0xC0000001)
    assert refused.encode() == header[:4] + bytes.fromhex("010000c0") + header[8:]


@pytest.mark.parametrize(
    ("data", "path"),
    [(b"", ""), (b"a", "\ufffd"), (b"a\0b", "a\ufffd"), (b"\x00\xd8a\0", "\ufffda"), (b"a\0\0\0b\0", "a")],
)
def test_a_damaged_path_is_still_a_text(data: bytes, path: str) -> None:
    assert FileIo.decode(FileIo.create("").header + data).path == path


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_any_path_survives_the_wire(path: str) -> None:
    request = FileIo.create(path)
    assert FileIo.decode(request.encode()) == request
    assert request.path == path


@given(st.sampled_from(FileIoApi), st.binary(min_size=60, max_size=120))
def test_any_bytes_behind_a_known_number_are_a_request(api: int, rest: bytes) -> None:
    payload = struct.pack("<I", api) + rest
    message = FileIo.decode(payload)
    assert (message.encode(), message.api) == (payload, api)
    assert isinstance(message.path, str)


@pytest.mark.parametrize("api", [0, 0x342F, 0x3434, 0xFFFFFFFF])
def test_an_unknown_number_is_the_peer_s_mistake(api: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{api:#x}"):
        FileIo.decode(struct.pack("<I", api) + bytes(60))


def test_every_truncation_is_a_request_or_the_peer_s_mistake() -> None:
    payload = FileIo.create(_PATH).encode()
    for size in range(HEADER_SIZE):
        with pytest.raises(RemoteProtocolError, match=f"{size} bytes"):
            FileIo.decode(payload[:size])
    for size in range(HEADER_SIZE, len(payload)):
        shorter = FileIo.decode(payload[:size])
        assert shorter.encode() == payload[:size]
        assert _PATH.startswith(shorter.path.rstrip("\ufffd"))
