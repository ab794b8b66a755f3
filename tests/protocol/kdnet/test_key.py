"""Key texts against the reference's table (kdnet 1.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import KdError, LocalProtocolError
from protocol.kdnet.key import ControlKey, KeyTextError, format_key, parse_key

_TABLE = [
    ("8.8.8.8", ("08" + "00" * 7) * 4),
    ("1.2.3.4", "".join(f"0{n}" + "00" * 7 for n in (1, 2, 3, 4))),
    ("17890.af3489a.9345kjm.lio147", "84c61e0000000000ce21d6470500000042f7f19a04000000a7e18d4d00000000"),
    ("3w5e11264sgsf.0.0.0", "ff" * 8 + "00" * 24),
]


@pytest.mark.parametrize(("text", "raw"), _TABLE)
def test_a_text_is_four_little_endian_numbers(text: str, raw: str) -> None:
    key = parse_key(text)
    assert key.raw == bytes.fromhex(raw)
    assert format_key(key) == text


def test_the_tag_is_made_with_the_complement() -> None:
    complement = "7b39e1ffffffffff31de29b8faffffffbd080e65fbffffff581e72b2ffffffff"
    assert parse_key("17890.af3489a.9345kjm.lio147").authentication_key == bytes.fromhex(complement)


def test_capitals_and_blanks_around_do_no_harm() -> None:
    assert parse_key(" 17890.AF3489A.9345kjm.LIO147\n") == parse_key("17890.af3489a.9345kjm.lio147")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "4 parts"),
        ("1.2.3", "not 3"),
        ("1.2.3.4.5", "not 5"),
        ("1..3.4", "part 2 of the key is empty"),
        ("1.2.3.-4", "part 4"),
        ("1.2. 3.4", "part 3"),
        ("1.2.3.4_5", "neither a letter nor a digit"),
        ("1.2.3.\u0664", "part 4"),
        ("3w5e11264sgsg.2.3.4", "part 1 of the key does not fit 64 bits"),
        ("1.2.3.00000000000004", "14 characters"),
    ],
)
def test_what_is_no_key_is_named_and_not_repeated(text: str, says: str) -> None:
    with pytest.raises(KeyTextError, match=says):
        parse_key(text)


def test_a_mistyped_key_does_not_stand_in_the_message() -> None:
    with pytest.raises(KeyTextError) as caught:
        parse_key("secretsecret1.othersecret!.third.fourth")
    assert "secret" not in str(caught.value)


def test_a_key_is_not_shown() -> None:
    assert repr(parse_key("1.2.3.4")) == "ControlKey()"


def test_a_key_of_another_size_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="32 bytes, not 31"):
        ControlKey(bytes(31))


@given(st.binary(min_size=32, max_size=32))
def test_every_key_has_a_text_that_means_it(raw: bytes) -> None:
    text = format_key(ControlKey(raw))
    assert parse_key(text).raw == raw
    assert all(1 <= len(part) <= 13 for part in text.split("."))
    assert sum(int(part, 36) << 64 * n for n, part in enumerate(text.split("."))) == int.from_bytes(raw, "little")


@given(st.text())
def test_any_text_is_a_key_or_a_named_error(text: str) -> None:
    try:
        parse_key(text)
    except KdError:
        return
    assert text.count(".") == 3
