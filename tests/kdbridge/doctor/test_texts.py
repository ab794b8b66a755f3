"""Whose text is on a line: what such consoles print."""

from __future__ import annotations

import pytest

from kdbridge.doctor.texts import look_for_text, shown

_TEXTS = {
    b"Computer is booting, SAC started and initialized.\r\n\r\nSAC>": "EMS/SAC",
    b"\x1b[2J\x1b[1;1HGNU GRUB  version 2.06\r\n": "boot menu",
    b"Windows Boot Manager\r\nChoose an operating system to start\r\n": "boot menu",
    b"[    0.000000] Linux version 6.1.0-18-amd64\r\n": "Linux",
    b"\r\nUbuntu 22.04.3 LTS server ttyS0\r\n\r\nserver login: ": "Linux",
    b"Trying 10.0.0.1...\r\nConnected to ts1.\r\nEscape character is '^]'.\r\n": "console server",
    b"\r\nRING\r\n": "modem",
    b"\x1b[2J\x1b[01;01HPlatform firmware 2.10\r\nBooting from disk ...\r\n": "firmware",
}


@pytest.mark.parametrize("text", _TEXTS)
def test_known_consoles_are_recognised(text: bytes) -> None:
    console = look_for_text(text)
    assert console is not None
    assert _TEXTS[text] in console.whose
    assert console.parity == ""


def test_text_that_nobody_knows_is_text() -> None:
    console = look_for_text(b"temperature 21.5 C, humidity 40 %\r\n")
    assert console is not None and console.whose == ""


@pytest.mark.parametrize("name", ["even", "odd", "mark"])
def test_text_with_a_parity_bit_is_seen_through(name: str) -> None:
    plain = b"server login: root\r\nPassword: "
    bits = {"even": lambda one: one & 1, "odd": lambda one: one & 1 ^ 1, "mark": lambda one: 1}[name]
    console = look_for_text(bytes(byte | bits(byte.bit_count()) << 7 for byte in plain))
    assert console is not None
    assert (console.text, console.parity) == (plain.decode(), name)
    assert "Linux" in console.whose


@pytest.mark.parametrize("data", [b"", b"abc", bytes(40), bytes(range(256)), b"0000\x07\0\xf0\0" * 5])
def test_what_is_no_text(data: bytes) -> None:
    assert look_for_text(data) is None


def test_what_is_shown_cannot_disturb_a_terminal() -> None:
    assert shown("\x1b[2J\x07" + "x" * 100).isprintable()
    assert len(shown("x" * 100)) < 60
