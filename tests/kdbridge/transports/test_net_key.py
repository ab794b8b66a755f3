"""Where a key comes from: the address, a file, KDBRIDGE_KEY; and that no sentence shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbridge.errors import FileError, UsageError
from kdbridge.transports.address import parse_target
from kdbridge.transports.net_key import find_key

_TEXT = "17890.af3489a.9345kjm.lio147"
# The bytes of that key in WinDbg's memory (kdnet 1.1).
_RAW = bytes.fromhex("84c61e0000000000 ce21d64705000000 42f7f19a04000000 a7e18d4d00000000")


@pytest.fixture
def keyfile(tmp_path: Path) -> Path:
    path = tmp_path / "kd.key"
    path.write_text(f"{_TEXT}\n")
    path.chmod(0o600)
    return path


def test_the_address_has_it() -> None:
    key, notes = find_key(parse_target(f"net:port=5,key={_TEXT}"), {"KDBRIDGE_KEY": "1.2.3.4"})
    assert (key.raw, notes) == (_RAW, ())


def test_the_environment_has_it() -> None:
    key, notes = find_key(parse_target("net:port=5"), {"KDBRIDGE_KEY": f" {_TEXT}\n"})
    assert (key.raw, notes) == (_RAW, ())


def test_a_file_has_it(keyfile: Path) -> None:
    key, notes = find_key(parse_target(f"net:port=5,keyfile={keyfile}"), {"KDBRIDGE_KEY": "1.2.3.4"})
    assert (key.raw, notes) == (_RAW, ())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_can_read_is_told_of(keyfile: Path, mode: int) -> None:
    keyfile.chmod(mode)
    key, (note,) = find_key(parse_target(f"net:port=5,keyfile={keyfile}"), {})
    assert key.raw == _RAW
    assert note == f"others on this machine can read the key in {keyfile}; chmod 600 {keyfile} keeps it from them"


def test_no_key_at_all() -> None:
    for environment in ({}, {"KDBRIDGE_KEY": "  "}):
        with pytest.raises(UsageError, match=r"there is no key: write key=w\.x\.y\.z as bcdedit /dbgsettings shows it"):
            find_key(parse_target("net:port=5"), environment)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("17890.af3489a.9345kjm", "has 4 parts with dots between"),
        ("17890.af3489a.9345kjm.lio14_", "part 4 of the key has a character that is neither a letter nor a digit"),
        ("17890.af3489a.9345kjm.zzzzzzzzzzzzz", "part 4 of the key does not fit 64 bits"),
    ],
)
def test_a_mistyped_key_is_not_repeated(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.key"
    path.write_text(text)
    for address, environment, where in (
        (f"net:port=5,key={text}", {}, "net://:5?key=…"),
        ("net:port=5", {"KDBRIDGE_KEY": text}, "KDBRIDGE_KEY"),
        (f"net:port=5,keyfile={path}", {}, str(path)),
    ):
        with pytest.raises(UsageError) as raised:
            find_key(parse_target(address), environment)
        assert str(raised.value).startswith(f"{where}: ") and complaint in str(raised.value)
        assert "17890" not in str(raised.value)


def test_a_file_that_is_not_there_or_holds_anything_else(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"the key file .*nothing cannot be read: No such file"):
        find_key(parse_target(f"net:port=5,keyfile={tmp_path}/nothing"), {})
    path = tmp_path / "big"
    path.write_bytes(bytes(range(256)) * 4096)
    with pytest.raises(UsageError):
        find_key(parse_target(f"net:port=5,keyfile={path}"), {})
