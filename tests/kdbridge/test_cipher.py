"""AES-256 in CBC mode, as NIST SP 800-38A shows it (F.2.5 and F.2.6); both packages have one of their own."""

from __future__ import annotations

import pytest

import kdbridge.cipher
import simulator.cipher

_KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
_IV = bytes(range(16))
_PLAIN = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710"
)
_CIPHER = bytes.fromhex(
    "f58c4c04d6e5f1ba779eabfb5f7bfbd6 9cfc4e967edb808d679f777bc6702c7d"
    "39f23369a9d9bacfa530e26304231461 b2eb05e2c39be9fcda6c19078c6a9d1b"
)


@pytest.mark.parametrize("made", [kdbridge.cipher.AesCbc, simulator.cipher.AesCbc])
def test_it_is_that_of_the_standard(made: type[kdbridge.cipher.AesCbc]) -> None:
    assert made().encrypt_cbc(_KEY, _IV, _PLAIN) == _CIPHER
    assert made().decrypt_cbc(_KEY, _IV, _CIPHER) == _PLAIN
    assert made().encrypt_cbc(_KEY, _IV, _PLAIN[:16]) == _CIPHER[:16], "nothing is padded"
