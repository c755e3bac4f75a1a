"""Encrypts push messages for one browser (RFC 8291), and signs the requests to push services (VAPID, RFC 8292)."""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid02

__all__ = ["AUTH_BYTES", "NO_CONTACT", "Vapid", "check_public_key", "decode_base64url", "encrypt", "make_vapid_key"]

AUTH_BYTES = 16
"""Length of a browser's authentication secret (RFC 8291 §3.2)."""

PADDED_BYTES = 160
"""Payloads are padded to this length, so that it reveals nothing about the room; longer ones are sent as they are."""

_SALT_BYTES = 16
_RECORD_BYTES = 4096
"""The record size (RFC 8188 §2.1); a payload is one record, and push services accept no larger ones."""

NO_CONTACT = "mailto:nobody@clasp-relay.invalid"
"""The contact for push services if the operator has set none; some push services refuse it."""

_LAST_RECORD = b"\x02"
_VAPID_LIFE_S = 12 * 3600
"""Lifetime of a VAPID token in seconds; RFC 8292 §2 allows 24 hours."""

_MAX_PROOFS = 100


def make_vapid_key() -> bytes:
    """Returns a new private key, in PEM."""
    vapid = Vapid02()
    vapid.generate_keys()
    pem: bytes = vapid.private_pem()
    return pem


def check_public_key(point: bytes) -> None:
    """Checks a browser's public key.

    Raises:
        ValueError: it is not an uncompressed point of P-256.
    """
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)


def decode_base64url(text: str) -> bytes:
    """Decodes base64url, with padding or without.

    Raises:
        ValueError: the text is not base64url.
    """
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _base64url(data) != text.rstrip("="):
        raise ValueError(text)
    return data


def encrypt(
    payload: bytes,
    p256dh: bytes,
    auth: bytes,
    *,
    padded_bytes: int = PADDED_BYTES,
    key: ec.EllipticCurvePrivateKey | None = None,
    salt: bytes | None = None,
) -> bytes:
    """Encrypts a payload for one browser: ``aes128gcm`` (RFC 8188) with the keys of RFC 8291 §3.

    Args:
        payload: at most about 4,000 bytes.
        p256dh: the browser's public key.
        auth: its authentication secret.
        padded_bytes: the length that the payload is padded to.
        key: the relay's key for this message alone; by default a new one.
        salt: 16 bytes; by default random.

    Raises:
        ValueError: the public key is not valid.
    """
    browser = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), p256dh)
    key = key or ec.generate_private_key(ec.SECP256R1())
    salt = salt or os.urandom(_SALT_BYTES)
    own = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = key.exchange(ec.ECDH(), browser)
    material = _derive(shared, auth, b"WebPush: info\x00" + p256dh + own, 32)
    content_key = _derive(material, salt, b"Content-Encoding: aes128gcm\x00", 16)
    nonce = _derive(material, salt, b"Content-Encoding: nonce\x00", 12)
    plain = payload + _LAST_RECORD + bytes(max(0, padded_bytes - len(payload)))
    head = salt + _RECORD_BYTES.to_bytes(4) + bytes((len(own),)) + own
    return head + AESGCM(content_key).encrypt(nonce, plain, None)


class Vapid:
    """Signs requests to push services, so that they can tell that this relay sends them.

    Args:
        pem: the relay's private key.
        contact: the operator's contact for push services, as ``mailto:…`` or ``https://…``; empty for none.
        now_s: Unix seconds.
    """

    def __init__(self, pem: bytes, contact: str, now_s: Callable[[], float]) -> None:
        self._vapid = Vapid02.from_pem(pem)
        self._vapid.conf["no-strict"] = True  # otherwise only a mailto: is taken
        self._contact = contact
        self._now_s = now_s
        self._proofs: OrderedDict[str, tuple[str, int]] = OrderedDict()
        point = self._vapid.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.public_key = _base64url(point)
        """The public key in base64url, which a page passes to its browser as ``applicationServerKey``."""

    def authorization(self, origin: str) -> str:
        """Returns the value of the Authorization header for a push service.

        Args:
            origin: the origin of the endpoint, as ``https://push.example``.
        """
        now_s = int(self._now_s())
        proof = self._proofs.get(origin)
        if proof is None or proof[1] < now_s + _VAPID_LIFE_S // 2:
            expires_s = now_s + _VAPID_LIFE_S
            claims: dict[str, object] = {"aud": origin, "exp": expires_s, "sub": self._contact or NO_CONTACT}
            proof = self._vapid.sign(claims)["Authorization"], expires_s
            self._proofs[origin] = proof
            if len(self._proofs) > _MAX_PROOFS:
                self._proofs.popitem(last=False)
        return proof[0]


def _derive(material: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(material)


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
