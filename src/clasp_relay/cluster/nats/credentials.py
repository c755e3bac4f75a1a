"""Credentials for NATS in the format of ``nsc`` (``.creds``): a user's JWT, and the seed of the key that signs for it.

The package that nats-py would use for this has no wheel, so a container image could not be built from pinned wheels
with it; the relay has Ed25519 already. Seeds are in the format of NATS's nkeys: base32 of two bytes for the type of the
key, 32 bytes of seed, and a CRC-16.
"""

from __future__ import annotations

import re
from base64 import b32decode, b64encode
from binascii import Error as BinasciiError
from binascii import crc_hqx
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clasp_relay.errors import cause_text

__all__ = ["BadCredentials", "Credentials"]

_JWT = re.compile(rb"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(rb"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END USER NKEY SEED-+")

SEED_BYTES = 32
_SEED_PREFIX = 18 << 3
"""The first five bits of every seed: an «S» in base32."""


class BadCredentials(Exception):
    """A file of credentials cannot be used; the text names the file and the reason."""


class Credentials:
    """The credentials in a file, which is read again for every connection, so that it may be replaced.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self) -> None:
        """Checks that the file can be used.

        Raises:
            BadCredentials: it cannot.
        """
        self._read()

    def jwt(self) -> bytearray:
        """Returns the user's JWT."""
        return bytearray(self._read()[0])

    def sign(self, nonce: str) -> bytes:
        """Returns the signature of a server's nonce, in base64."""
        return b64encode(self._read()[1].sign(nonce.encode()))

    def _read(self) -> tuple[bytes, Ed25519PrivateKey]:
        try:
            content = self._path.read_bytes()
        except OSError as error:
            raise BadCredentials(f"{self._path}: {cause_text(error)}") from None
        jwt, seed = _JWT.search(content), _SEED.search(content)
        key = None if seed is None else _key(seed[1])
        if jwt is None or key is None:
            raise BadCredentials(f"{self._path}: not a file of credentials, as nsc makes them (.creds)")
        return jwt[1], key


def _key(seed: bytes) -> Ed25519PrivateKey | None:
    """Returns the key of a seed; None if it is not valid."""
    try:
        raw = b32decode(seed + b"=" * (-len(seed) % 8))
    except BinasciiError:
        return None
    body, checksum = raw[:-2], int.from_bytes(raw[-2:], "little")
    if len(body) != SEED_BYTES + 2 or body[0] & 0xF8 != _SEED_PREFIX or crc_hqx(body, 0) != checksum:
        return None
    return Ed25519PrivateKey.from_private_bytes(body[2:])
