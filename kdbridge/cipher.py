"""AES for KDNET: the one thing that `protocol.kdnet` wants passed in."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

__all__ = ["AesCbc"]


class AesCbc:
    """AES in CBC mode, without padding."""

    __slots__ = ()

    def encrypt_cbc(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        """`data` is a multiple of 16 bytes; `key` has 32, `iv` 16."""
        return Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor().update(data)

    def decrypt_cbc(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        """`data` is a multiple of 16 bytes; `key` has 32, `iv` 16."""
        return Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor().update(data)
