"""The configuration of coturn that is shipped, in a real coturn: what it lets a client with credentials reach."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import socket
import struct
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.turn_server import TurnServer
from tests.deploy import tools
from tests.ports import free_port

PATIENCE_S = 30
SECRET = "shared by both"
REALM = "chat.example.org"
COOKIE = 0x2112A442

BINDING, ALLOCATE, CREATE_PERMISSION, ERROR_CLASS = 0x001, 0x003, 0x008, 0x0110
USERNAME, INTEGRITY, ERROR_CODE, PEER, REALM_OF, NONCE, FAMILY, TRANSPORT = (
    0x06, 0x08, 0x09, 0x12, 0x14, 0x15, 0x17, 0x19,
)  # fmt: skip


def attribute(kind: int, value: bytes) -> bytes:
    """Returns an attribute of a STUN message (RFC 8489 §14)."""
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def peer(address: str) -> bytes:
    """Returns XOR-PEER-ADDRESS without the part that depends on the transaction, whose id is all zeros here."""
    ip = ipaddress.ip_address(address)
    mask = struct.pack("!I", COOKIE) + bytes(12)
    hidden = bytes(one ^ other for one, other in zip(ip.packed, mask, strict=False))
    return struct.pack("!BBH", 0, 1 if ip.version == 4 else 2, 9 ^ (COOKIE >> 16)) + hidden


class Client:
    """A TURN client with credentials as the relay makes them.

    Args:
        port: of the server on the loopback interface.
        subject: for whom the credentials are.
    """

    def __init__(self, port: int, subject: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(("127.0.0.1", port))
        turn = TurnServer(["turn:127.0.0.1"], SECRET, lambda _subject: True, time.time)
        (server,) = turn.servers_for(subject).ice_servers
        self._user, self._password = server["username"], server["credential"]
        self._nonce = b""

    def close(self) -> None:
        """Lets go of the socket; the allocation ends by its life time."""
        self._socket.close()

    def ask(self, method: int, *attributes: bytes) -> int:
        """Sends a request; returns 0, or the error's code."""
        code, answer = self._exchange(method, attributes)
        if code in (401, 438):
            self._nonce = answer[NONCE]
            code, answer = self._exchange(method, attributes)
        return code

    def _exchange(self, method: int, attributes: Iterable[bytes]) -> tuple[int, dict[int, bytes]]:
        body = b"".join(attributes)
        if self._nonce:
            names = ((USERNAME, self._user.encode()), (REALM_OF, REALM.encode()), (NONCE, self._nonce))
            body += b"".join(attribute(kind, value) for kind, value in names)
        head = struct.pack("!HHI", method, len(body) + (24 if self._nonce else 0), COOKIE) + bytes(12)
        if self._nonce:
            key = hashlib.md5(f"{self._user}:{REALM}:{self._password}".encode(), usedforsecurity=False).digest()
            body += attribute(INTEGRITY, hmac.digest(key, head + body, "sha1"))
        self._socket.send(head + body)
        return self._read(self._socket.recv(2048))

    @staticmethod
    def _read(message: bytes) -> tuple[int, dict[int, bytes]]:
        found, at = {}, 20
        while at < len(message):
            kind, length = struct.unpack_from("!HH", message, at)
            found[kind] = message[at + 4 : at + 4 + length]
            at += 4 + length + -length % 4
        is_error = struct.unpack_from("!H", message)[0] & ERROR_CLASS == ERROR_CLASS
        code = found[ERROR_CODE][2] * 100 + found[ERROR_CODE][3] if is_error else 0
        return code, found

    def bind(self) -> int:
        """Asks what its own address is, for which no credentials are needed; returns 0, or the error's code."""
        return self.ask(BINDING)

    def allocate(self, version: int = 4) -> int:
        """Asks for an address that is relayed; returns 0, or the error's code."""
        family = attribute(FAMILY, bytes([1 if version == 4 else 2, 0, 0, 0]))
        return self.ask(ALLOCATE, attribute(TRANSPORT, bytes([17, 0, 0, 0])), family)

    def may_send_to(self, address: str) -> int:
        """Asks for the right to send to a peer; returns 0, or the error's code."""
        return self.ask(CREATE_PERMISSION, attribute(PEER, peer(address)))


class ShippedConfigurationTests(SynchronousTestCase):
    """deploy/droplet/turnserver.conf."""

    def setUp(self) -> None:
        """Starts coturn with it, on the loopback interface, since a test has no other; its peers are not touched."""
        program = tools.required(tools.turnserver)
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.port = free_port()
        shipped = (tools.DEPLOY / "droplet" / "turnserver.conf").read_text(encoding="utf-8")
        own = {"listening-ip": "127.0.0.1", "realm": REALM, "static-auth-secret": SECRET, "userdb": folder / "db"}
        lines = [shipped, *(f"{name}={value}" for name, value in own.items()), "relay-ip=127.0.0.1", "relay-ip=::1"]
        lines.append(f"pidfile={folder / 'pid'}")
        config = folder / "turnserver.conf"
        config.write_text("\n".join(lines).replace("listening-port=3478", f"listening-port={self.port}"))
        log = (folder / "log").open("wb")
        self.addCleanup(log.close)
        process = subprocess.Popen([program, "-c", config], cwd=folder, stdout=log, stderr=log, env=dict(os.environ))
        self.addCleanup(process.wait, PATIENCE_S)
        self.addCleanup(process.kill)
        self.log = folder / "log"
        self.wait(process)

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Waits until it answers over UDP, which it may do later than over TCP."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and process.poll() is None:
            try:
                self.client().bind()
            except ConnectionRefusedError:
                time.sleep(0.05)
            else:
                return
        self.fail(f"coturn does not answer:\n{self.log.read_text()[-2000:]}")

    def client(self, subject: str = "ada") -> Client:
        """Returns a client."""
        client = Client(self.port, subject)
        self.addCleanup(client.close)
        return client

    def test_nothing_in_the_configuration_is_unknown(self) -> None:
        """A word that coturn does not know is a limit that does not hold."""
        said = self.log.read_text()
        for complaint in ("Bad configuration", "Unknown", "unknown", "ERROR"):
            self.assertNotIn(complaint, said)

    def test_clients_reach_the_internet_and_nothing_inside(self) -> None:
        """The credentials are those that the relay gives."""
        client = self.client()
        self.assertEqual(client.allocate(), 0)
        for address in ("1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "192.169.0.1"):
            with self.subTest(address):
                self.assertEqual((address, client.may_send_to(address)), (address, 0))
        inside = (
            "0.0.0.0 10.0.0.1 10.255.255.255 100.64.0.1 127.0.0.1 127.8.9.10 169.254.169.254 172.16.0.1 172.30.73.2"
        )
        for address in (*inside.split(), "172.31.255.255", "192.168.1.1", "198.18.0.1", "224.0.0.1", "255.255.255.255"):
            with self.subTest(address):
                self.assertEqual((address, client.may_send_to(address)), (address, 403))

    def test_clients_reach_nothing_inside_by_ipv6(self) -> None:
        """Also where an IPv4 address is inside of it."""
        client = self.client()
        self.assertEqual(client.allocate(version=6), 0)
        self.assertEqual(client.may_send_to("2606:4700:4700::1111"), 0)
        inside = (
            "::1 :: ::ffff:10.0.0.1 ::ffff:127.0.0.1 ::10.0.0.1 64:ff9b::a00:1 64:ff9b:1::a00:1 2001::1 2002:a00:1::1"
        )
        for address in (*inside.split(), "fc00::1", "fd30:73c1:a5b0::2", "fe80::1", "fec0::1", "ff02::1"):
            with self.subTest(address):
                self.assertEqual((address, client.may_send_to(address)), (address, 403))

    def test_one_user_has_a_bounded_number_of_allocations(self) -> None:
        """However many credentials they get; others go on."""
        codes = [self.client().allocate() for _ in range(40)]
        self.assertEqual((codes.count(0), set(codes)), (32, {0, 486}))
        self.assertEqual(self.client("bob").allocate(), 0)

    def test_wrong_credentials_get_nothing(self) -> None:
        """Nor do those that expired."""
        client = self.client()
        client._password = b64encode(bytes(20)).decode()
        self.assertEqual(client.allocate(), 401)
        client = self.client()
        client._user = f"{int(time.time()) - 60}:ada"
        client._password = b64encode(hmac.digest(SECRET.encode(), client._user.encode(), "sha1")).decode()
        self.assertEqual(client.allocate(), 401)
