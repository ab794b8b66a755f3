"""AES for KDNET: the one thing that `protocol.kdnet` wants passed in."""

from __future__ import annotations

__all__ = ["AesCbc"]


class AesCbc:
    """AES in CBC mode, without padding."""

    __slots__ = ("_algorithms", "_cipher", "_modes")

    def __init__(self) -> None:
        # Only who speaks KDNET pays for it: 7 MiB, and a tenth of a second.
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._algorithms, self._cipher, self._modes = algorithms, Cipher, modes

    def encrypt_cbc(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        """`data` is a multiple of 16 bytes; `key` has 32, `iv` 16."""
        return self._cipher(self._algorithms.AES(key), self._modes.CBC(iv)).encryptor().update(data)

    def decrypt_cbc(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        """`data` is a multiple of 16 bytes; `key` has 32, `iv` 16."""
        return self._cipher(self._algorithms.AES(key), self._modes.CBC(iv)).decryptor().update(data)
