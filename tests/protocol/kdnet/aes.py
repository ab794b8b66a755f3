"""The cipher that the link wants passed in, made of `cryptography`."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

__all__ = ["Aes"]


class Aes:
    """AES-256-CBC without padding. Counts, so that a test may say what garbage costs."""

    def __init__(self) -> None:
        self.decrypted = 0
        """Datagrams that were decrypted, in vain or not."""

    def encrypt_cbc(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
        return encryptor.update(data) + encryptor.finalize()

    def decrypt_cbc(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        self.decrypted += 1
        decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
        return decryptor.update(data) + decryptor.finalize()
