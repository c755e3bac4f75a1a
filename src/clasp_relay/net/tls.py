"""TLS whose certificate and key can be reloaded while the relay runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from clasp_relay.errors import StartError
from clasp_relay.logs import events

__all__ = ["ServerTls"]

_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES256:ECDHE+AES128:!aNULL:!MD5:!DSS"
"""The cipher suites of TLS 1.2: all have forward secrecy; AES-GCM and ChaCha20 come first, as in Twisted's own list."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """The server's side of TLS 1.2 and later, for ``listenSSL``.

    Args:
        certificate: PEM file of the certificate, followed by the chain that leads to its root.
        key: PEM file of its key, without a password.

    Raises:
        StartError: one of them cannot be used.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._context, leaf = self._load()
        _log_end(leaf, certificate)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: ARG002, N802  Twisted's names
        """Makes the TLS state of a new connection, with the files that were loaded last."""
        return SSL.Connection(self._context, None)

    def reload(self) -> bool:
        """Reads both files again, for new connections; open ones continue with the previous certificate.

        Returns:
            Whether they are in use now. If not, the previous ones stay in use, and the log says why.
        """
        try:
            self._context, leaf = self._load()
        except StartError as error:
            events.TLS_NOT_RELOADED.log(error=str(error))
            return False
        events.TLS_RELOADED.log(path=str(self._certificate))
        _log_end(leaf, self._certificate)
        return True

    def _load(self) -> tuple[SSL.Context, Certificate]:
        data = _read("--tls-cert", self._certificate)
        try:
            leaf, *chain = load_pem_x509_certificates(data)
        except ValueError as error:
            words = "is not a certificate in PEM format (-----BEGIN CERTIFICATE-----)"
            raise StartError(f"--tls-cert: {self._certificate} {words}") from error
        context = _make_context()
        try:
            context.use_certificate(X509.from_cryptography(leaf))
            for each in chain:
                context.add_extra_chain_cert(X509.from_cryptography(each))
        except SSL.Error as error:
            why = _reason(error)
            raise StartError(
                f"--tls-cert: {self._certificate} cannot be used ({why}); have another one issued"
            ) from error
        try:
            context.use_privatekey(self._load_key())
            context.check_privatekey()
        except SSL.Error as error:
            raise StartError(
                f"--tls-key: {self._key} is not the key of the first certificate in {self._certificate}"
            ) from error
        return context, leaf

    def _load_key(self) -> PKey:
        data = _read("--tls-key", self._key)
        try:
            return PKey.from_cryptography_key(load_pem_private_key(data, password=None))  # type: ignore[arg-type]
        except TypeError as error:  # either there is a password, or TLS has no use for such a key
            raise StartError(f"--tls-key: {self._key} cannot be used ({error})") from error
        except ValueError as error:
            raise StartError(
                f"--tls-key: {self._key} is not a key in PEM format (-----BEGIN PRIVATE KEY-----)"
            ) from error


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"{option}: {path} cannot be read ({error.strerror})") from error


def _make_context() -> SSL.Context:
    """Returns a context without callbacks.

    Twisted's ``CertificateOptions`` always sets one for ALPN. It needs memory that is writable and executable, which
    systemd's ``MemoryDenyWriteExecute=`` and SELinux refuse.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)  # RFC 8996 retires what is older
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(_CIPHERS)
    return context


def _reason(error: SSL.Error) -> str:
    """Returns the text of an OpenSSL error, such as «ee key too small»."""
    return "; ".join(str(each[-1]) for each in error.args[0]) if error.args and error.args[0] else "refused by OpenSSL"


def _log_end(leaf: Certificate, path: Path) -> None:
    """Logs the end of a certificate's validity; as a warning if it has expired."""
    end = leaf.not_valid_after_utc
    if end < datetime.now(UTC):
        events.TLS_EXPIRED.log(path=str(path), end=end.isoformat())
    else:
        events.TLS_VALID.log(path=str(path), end=end.isoformat())
