"""Files of credentials, and a real nats-server that lets nobody in without."""

from __future__ import annotations

import json
import time
from base64 import b32encode, urlsafe_b64encode
from binascii import crc_hqx
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.nats.credentials import BadCredentials, Credentials
from clasp_relay.cluster.nats.engine import NatsEngine
from tests.cluster.reactor import Loop
from tests.integration.nats import Nats

OPERATOR, ACCOUNT, USER = 14 << 3, 0, 20 << 3
"""The first byte of a public key: what it is for."""

UNLIMITED = {"subs": -1, "data": -1, "payload": -1}
"""What an account and a user may do."""


class Key:
    """A key of NATS.

    Args:
        kind: what it is for.
    """

    def __init__(self, kind: int) -> None:
        self._kind = kind
        self._key = Ed25519PrivateKey.generate()

    @property
    def name(self) -> str:
        """The public key, as it is written."""
        return text(bytes((self._kind,)) + self._key.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        """The private key, as it is written."""
        prefix = bytes((18 << 3 | self._kind >> 5, (self._kind & 31) << 3))
        return text(prefix + self._key.private_bytes_raw())

    def token(self, subject: Key, nats: dict[str, object]) -> str:
        """Returns a JWT about another key, or this one, signed with this one."""
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        claims = {"jti": "x", "iat": int(time.time()), "iss": self.name, "sub": subject.name, "name": "test"}
        parts = [base64(json.dumps(each).encode()) for each in (head, {**claims, "nats": nats | {"version": 2}})]
        signed = ".".join(parts)
        return f"{signed}.{base64(self._key.sign(signed.encode()))}"


def text(data: bytes) -> str:
    """Returns a key as NATS writes it."""
    return b32encode(data + crc_hqx(data, 0).to_bytes(2, "little")).decode().rstrip("=")


def base64(data: bytes) -> str:
    """Returns bytes as a JWT has them."""
    return urlsafe_b64encode(data).decode().rstrip("=")


def creds(jwt: str, seed: str) -> str:
    """Returns the text of a file of credentials."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


class FileTests(SynchronousTestCase):
    """What a file has to hold."""

    def refusal(self, content: str) -> str:
        """Returns why a file cannot be used."""
        path = Path(self.mktemp())
        path.write_text(content)
        return str(self.assertRaises(BadCredentials, Credentials(path).check))

    def test_files_that_hold_no_credentials_are_refused(self) -> None:
        """Also those with a seed that is damaged, or none of a seed's length; the text names the file."""
        seed = Key(USER).seed
        damaged = seed[:9] + ("A" if seed[9] != "A" else "B") + seed[10:]
        for content in ("", "hello", creds("a.b.c", ""), creds("a.b.c", "%%%"), creds("a.b.c", damaged)):
            with self.subTest(content):
                self.assertIn(": not a file of credentials", self.refusal(content))
        for content in (creds("a.b.c", Key(USER).name), creds("a.b.c", seed[:16]), seed):
            self.assertIn(": not a file of credentials", self.refusal(content))

    def test_file_that_is_missing_is_named(self) -> None:
        """With the system's reason."""
        error = self.assertRaises(BadCredentials, Credentials(Path("/nowhere/x.creds")).check)
        self.assertIn("/nowhere/x.creds: No such file", str(error))


class ServerTests(SynchronousTestCase):
    """A nats-server that knows an operator and an account, and no passwords."""

    def setUp(self) -> None:
        """Starts it."""
        self.operator, self.account, self.user = Key(OPERATOR), Key(ACCOUNT), Key(USER)
        system = Key(ACCOUNT)
        limits = UNLIMITED | {"conn": -1, "leaf": -1, "imports": -1, "exports": -1, "wildcards": True}
        storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
        account: dict[str, object] = {"type": "account", "limits": limits | storage}
        self.nats = Nats(Path(self.mktemp()).absolute())
        self.addCleanup(self.nats.close)
        config = self.nats.servers[0]._config
        config.write_text(
            f"{config.read_text('utf-8')}\n"
            f"operator: {self.operator.token(self.operator, {'type': 'operator'})}\n"
            "resolver: MEMORY\n"
            f"system_account: {system.name}\n"
            f"resolver_preload: {{ {self.account.name}: {self.operator.token(self.account, account)}\n"
            f"{system.name}: {self.operator.token(system, {'type': 'account', 'limits': limits})} }}\n"
        )
        self.nats.start()
        self.loop = Loop()
        self.fatal: list[str] = []

    def engine(self, seed: str) -> NatsEngine:
        """Begins to connect with a user's JWT and a seed."""
        path = Path(self.mktemp())
        jwt = self.account.token(self.user, {"type": "user", **UNLIMITED})
        path.write_text(creds(jwt, seed))
        engine = NatsEngine(self.loop, (self.nats.url,), "test", path, "one")
        engine.start(lambda _connected: None, self.fatal.append)
        self.addCleanup(self.stop, engine)
        return engine

    def stop(self, engine: NatsEngine) -> None:
        """Ends an engine."""
        ended: list[bool] = []
        engine.stop(lambda: ended.append(True))
        self.loop.until(lambda: bool(ended))

    def test_user_with_credentials_is_let_in(self) -> None:
        """The server takes the JWT and the signature."""
        engine = self.engine(self.user.seed)
        self.loop.until(lambda: engine.is_connected or bool(self.fatal))
        self.assertEqual(self.fatal, [])

    def test_another_key_than_the_users_is_refused(self) -> None:
        """In one line that names the option."""
        self.engine(Key(USER).seed)
        self.loop.until(lambda: bool(self.fatal))
        self.assertIn("NATS refuses the credentials; see --cluster-creds", self.fatal[0])
