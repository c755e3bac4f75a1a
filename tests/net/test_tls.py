"""TLS in memory: which certificate a client is shown, and what is said of files that cannot be used."""

import contextlib
import ssl
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import StartError
from clasp_relay.net.tls import ServerTls
from tests.certificates import HOST, issue, trusting


def handshake(server: SSL.Connection, context: ssl.SSLContext) -> ssl.SSLObject:
    """Returns the client's side of a finished handshake; raises what the client or the server raises."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    server.set_accept_state()
    for _ in range(10):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            server.bio_write(outgoing.read())
            with contextlib.suppress(SSL.WantReadError):  # then it is the client's turn
                server.do_handshake()
            incoming.write(server.bio_read(1 << 16))
        else:
            return client
    raise AssertionError("no end to the handshake")


class ServerTlsTestCase(SynchronousTestCase):
    """Has a folder for files."""

    def setUp(self) -> None:
        """Makes it."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()


class HandshakeTests(ServerTlsTestCase):
    """What clients get."""

    def test_client_is_shown_the_certificate_with_its_chain(self) -> None:
        """Who trusts the root alone trusts the relay, since the certificates between are sent too."""
        root = issue("root", is_authority=True)
        between = issue("between", root, is_authority=True)
        leaf = issue(issuer=between)
        tls = ServerTls(*leaf.write(self.folder, between))
        client = handshake(tls.serverConnectionForTLS(None), trusting(root))
        self.assertEqual(client.version(), "TLSv1.3")

    def test_client_may_speak_tls_1_2_and_nothing_older(self) -> None:
        """RFC 8996 retires 1.0 and 1.1."""
        pair = issue()
        tls = ServerTls(*pair.write(self.folder))
        context = trusting(pair)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertEqual(handshake(tls.serverConnectionForTLS(None), context).version(), "TLSv1.2")
        old = SSL.Context(SSL.TLS_CLIENT_METHOD)
        old.set_cipher_list(b"ALL:@SECLEVEL=0")
        old.set_max_proto_version(SSL.TLS1_1_VERSION)
        client, server = SSL.Connection(old, None), tls.serverConnectionForTLS(None)
        client.set_connect_state()
        server.set_accept_state()
        with self.assertRaises(SSL.WantReadError):
            client.do_handshake()
        server.bio_write(client.bio_read(1 << 16))
        with self.assertRaisesRegex(SSL.Error, "unsupported protocol"):
            server.do_handshake()


class ReloadTests(ServerTlsTestCase):
    """Files that are replaced."""

    def test_new_connections_get_the_new_certificate_after_a_reload(self) -> None:
        """Not before it, and what was made before stays as it was."""
        old, new = issue(), issue()
        tls = ServerTls(*old.write(self.folder))
        open_before = tls.serverConnectionForTLS(None)
        new.write(self.folder)
        handshake(tls.serverConnectionForTLS(None), trusting(old))
        self.assertTrue(tls.reload())
        handshake(tls.serverConnectionForTLS(None), trusting(new))
        with self.assertRaises(ssl.SSLCertVerificationError):
            handshake(tls.serverConnectionForTLS(None), trusting(old))
        handshake(open_before, trusting(old))

    def test_old_certificate_stays_when_the_new_one_cannot_be_used(self) -> None:
        """The log says why; a later reload of good files works."""
        old, new = issue(), issue()
        certificate, key = old.write(self.folder)
        tls = ServerTls(certificate, key)
        certificate.write_bytes(new.pem)
        with capturedLogs() as events:
            self.assertFalse(tls.reload())
        (event,) = (event for event in events if event["log_level"] is LogLevel.error)
        self.assertIn("is not the key of the first certificate", event["error"])
        handshake(tls.serverConnectionForTLS(None), trusting(old))
        key.write_bytes(new.key_pem())
        self.assertTrue(tls.reload())
        handshake(tls.serverConnectionForTLS(None), trusting(new))


class FilesTests(ServerTlsTestCase):
    """What is said of files."""

    def test_server_names_option_file_and_cause_when_a_file_cannot_be_used(self) -> None:
        """Missing, of another kind, with a password, or not of one pair."""
        pair, other = issue(), issue()
        cases: list[tuple[bytes | None, bytes | None, str]] = [
            (None, pair.key_pem(), r"--tls-cert: .*cert\.pem cannot be read \(No such file or directory\)"),
            (pair.pem, None, r"--tls-key: .*key\.pem cannot be read \(No such file or directory\)"),
            (b"junk", pair.key_pem(), r"--tls-cert: .*cert\.pem is not a certificate in PEM format"),
            (b"", pair.key_pem(), r"--tls-cert: .*cert\.pem is not a certificate in PEM format"),
            (pair.key_pem(), pair.pem, r"--tls-cert: .*cert\.pem is not a certificate in PEM format"),
            (pair.pem, b"junk", r"--tls-key: .*key\.pem is not a key in PEM format"),
            (pair.pem, pair.pem, r"--tls-key: .*key\.pem is not a key in PEM format"),
            (pair.pem, pair.key_pem(b"secret"), r"--tls-key: .*key\.pem cannot be used \(Password was not given"),
            (
                pair.pem,
                other.key_pem(),
                r"--tls-key: .*key\.pem is not the key of the first certificate in .*cert\.pem",
            ),
        ]
        certificate, key = self.folder / "cert.pem", self.folder / "key.pem"
        for certificate_data, key_data, words in cases:
            with self.subTest(words):
                for path, data in ((certificate, certificate_data), (key, key_data)):
                    path.unlink(missing_ok=True)
                    if data is not None:
                        path.write_bytes(data)
                with self.assertRaisesRegex(StartError, words):
                    ServerTls(certificate, key)

    def test_server_names_a_key_that_openssl_finds_too_small(self) -> None:
        """As the certificate's fault, not as a key that does not belong to it."""
        pair = issue(key=rsa.generate_private_key(65_537, 1_024))  # noqa: S505  that is the test
        with self.assertRaisesRegex(StartError, r"--tls-cert: .* cannot be used \(ee key too small\)"):
            ServerTls(*pair.write(self.folder))

    def test_server_warns_of_a_certificate_that_has_expired(self) -> None:
        """It serves all the same: clients decide, and a new one may be on its way."""
        for days, level in ((1, LogLevel.info), (-1, LogLevel.warn)):
            with self.subTest(days=days), capturedLogs() as events:
                ServerTls(*issue(days=days).write(self.folder))
                self.assertEqual([event["log_level"] for event in events], [level])
