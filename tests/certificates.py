"""Certificates for tests: made in a moment, trusted by nobody else."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

HOST = "localhost"

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Issued(NamedTuple):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, password: bytes = b"") -> bytes:
        """Returns the key in PEM, with a password or without."""
        encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def write(self, folder: Path, *chain: Issued) -> tuple[Path, Path]:
        """Writes ``cert.pem`` and ``key.pem``; returns their paths."""
        certificate, key = folder / "cert.pem", folder / "key.pem"
        certificate.write_bytes(b"".join(each.pem for each in (self, *chain)))
        key.write_bytes(self.key_pem())
        return certificate, key


def issue(
    name: str = HOST,
    issuer: Issued | None = None,
    *,
    is_authority: bool = False,
    days: int = 1,
    key: Key | None = None,
) -> Issued:
    """Makes a certificate.

    Args:
        name: the host that it is for.
        issuer: who signs it; itself when None.
        is_authority: whether it may sign others.
        days: until it ends; negative when it has ended.
        key: its key; a new one when None.
    """
    key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(key if issuer is None else issuer.key, hashes.SHA256())
    )
    return Issued(certificate, key)


def trusting(*roots: Issued) -> ssl.SSLContext:
    """Returns a client's context that trusts these certificates and no others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata="".join(root.pem.decode() for root in roots))
    return context
