"""The key of a network target, as people write it: four numbers in base 36 with dots between (kdnet 1.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.errors import KdError, LocalProtocolError

__all__ = ["CONTROL_KEY_SIZE", "ControlKey", "KeyTextError", "format_key", "parse_key"]

CONTROL_KEY_SIZE = 32

_COMPONENTS = 4
_LONGEST = 13
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class KeyTextError(KdError):
    """A text is no key. The message never repeats the text: it may be a key with one typing mistake."""


@dataclass(frozen=True, slots=True)
class ControlKey:
    """The 32 bytes that both ends were given. Not shown when printed."""

    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.raw) != CONTROL_KEY_SIZE:
            raise LocalProtocolError(f"a control key has {CONTROL_KEY_SIZE} bytes, not {len(self.raw)}")

    @property
    def authentication_key(self) -> bytes:
        """HMAC's key on both channels: the complement (kdnet 3)."""
        return bytes(byte ^ 0xFF for byte in self.raw)


def parse_key(text: str) -> ControlKey:
    """Read `w.x.y.z`. Raises KeyTextError, which says what is wrong and where without repeating the text."""
    components = text.strip().split(".")
    if len(components) != _COMPONENTS:
        raise KeyTextError(f"a key has {_COMPONENTS} parts with dots between, such as 1.2.3.4, not {len(components)}")
    raw = b""
    for number, component in enumerate(components, start=1):
        if not component:
            raise KeyTextError(f"part {number} of the key is empty")
        if len(component) > _LONGEST:
            raise KeyTextError(f"part {number} of the key has {len(component)} characters; {_LONGEST} is the most")
        if not component.isascii() or not component.isalnum():
            raise KeyTextError(f"part {number} of the key has a character that is neither a letter nor a digit")
        value = int(component, 36)
        if value >> 64:
            raise KeyTextError(f"part {number} of the key does not fit 64 bits: 3w5e11264sgsf is the largest")
        raw += value.to_bytes(8, "little")
    return ControlKey(raw)


def format_key(key: ControlKey) -> str:
    """The text of a key, in lower case, as Windows prints it."""
    return ".".join(_base36(int.from_bytes(key.raw[at : at + 8], "little")) for at in range(0, CONTROL_KEY_SIZE, 8))


def _base36(value: int) -> str:
    digits = ""
    while True:
        value, digit = divmod(value, 36)
        digits = _DIGITS[digit] + digits
        if not value:
            return digits
