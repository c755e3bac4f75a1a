"""Listening with the system's own refusals."""

import os
import socket
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from clasp_relay.errors import StartError
from clasp_relay.net.listening import TcpPlace, Where, listen


class RealListenTests(TestCase):
    """Real ports, and paths."""

    def listening(self, where: Where) -> int:
        """Listens until the test ends, and returns the port's number."""
        port = listen(reactor, where, Factory(), "--port")
        self.addCleanup(port.stopListening)
        address = port.getHost()
        assert isinstance(address, IPv4Address | IPv6Address)
        return address.port

    def test_listen_finds_a_free_port(self) -> None:
        """Whichever way it is asked for."""
        for where in (TcpPlace("127.0.0.1", 0), TcpPlace("localhost", 0), "tcp:0:interface=127.0.0.1"):
            with self.subTest(where):
                self.assertGreater(self.listening(where), 0)

    def test_listen_removes_the_lock_of_a_socket_on_which_nobody_listens(self) -> None:
        """Of a container that was killed: it names process 1, which is the relay now, or another living one."""
        for owner in (os.getpid(), os.getppid()):
            for has_socket in (False, True):
                with self.subTest(owner=owner, has_socket=has_socket):
                    path = Path(self.mktemp())
                    if has_socket:
                        with socket.socket(socket.AF_UNIX) as old:
                            old.bind(str(path))
                    Path(f"{path}.lock").symlink_to(str(owner))
                    port = listen(reactor, f"unix:{path}", Factory(), "--endpoint")
                    self.addCleanup(port.stopListening)
                    self.assertEqual(Path(f"{path}.lock").readlink(), Path(str(os.getpid())))

    def test_listen_leaves_the_lock_of_a_socket_on_which_somebody_listens(self) -> None:
        """Two relays do not take each other's socket."""
        path = Path(self.mktemp())
        port = listen(reactor, f"unix:{path}", Factory(), "--endpoint")
        self.addCleanup(port.stopListening)
        with self.assertRaises(StartError):
            listen(reactor, f"unix:{path}", Factory(), "--endpoint")
        self.assertTrue(path.exists())

    def test_listen_names_what_the_system_refuses(self) -> None:
        """Ports in use, names that are none, paths that cannot be."""
        taken = self.listening(TcpPlace("127.0.0.1", 0))
        folder = Path(self.mktemp())
        cases: list[tuple[Where, str]] = [
            (TcpPlace("127.0.0.1", taken), f"127.0.0.1:{taken} (Address already in use)"),
            (f"tcp:{taken}:interface=127.0.0.1", "(Address already in use)"),
            (TcpPlace("192.0.2.1", 0), "192.0.2.1:0 (Cannot assign requested address)"),
            (TcpPlace("no-such-host.invalid", 0), "no-such-host.invalid:0 ("),
            (TcpPlace("x" * 64, 0), f"{'x' * 64}:0 ("),
            (TcpPlace("a..b", 0), "a..b:0 ("),
            (f"unix:{folder}/clasp.sock", "clasp.sock.lock: No such file or directory)"),
        ]
        if os.getuid() != 0:
            cases.append((TcpPlace("127.0.0.1", 1), "127.0.0.1:1 (Permission denied)"))
        for where, words in cases:
            with self.subTest(where):
                with self.assertRaises(StartError) as caught:
                    self.listening(where)
                text = str(caught.exception)
                self.assertTrue(text.startswith("--port: cannot listen on "), text)
                self.assertIn(words, text)
                self.assertEqual(len(text.splitlines()), 1)
