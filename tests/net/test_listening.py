"""Listening: the reactor is asked for what was said, and what cannot be is one line that names the option."""

import socket
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import StartError
from clasp_relay.net import listening
from clasp_relay.net.listening import ACCEPTED_AT_ONCE, BACKLOG, TcpPlace, Where, listen


class Full:
    """A reactor on which nothing can listen."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def listenTCP(self, *_: Any, **__: Any) -> IListeningPort:  # noqa: N802  Twisted's name
        """Fails."""
        raise self._error


class Odd:
    """An endpoint of a plugin that does what it likes."""

    def __init__(self, result: object) -> None:
        self._result = result

    def listen(self, _: object) -> object:
        """Returns it."""
        return self._result


class ListenTests(SynchronousTestCase):
    """The two ways to say where."""

    def refusal(self, reactor: Any, where: Where, option: str) -> str:
        """Returns why it cannot be listened there."""
        with self.assertRaises(StartError) as caught:
            listen(reactor, where, Factory(), option)
        text = str(caught.exception)
        self.assertEqual(len(text.splitlines()), 1)
        return text

    def test_listen_takes_host_and_port(self) -> None:
        """With the backlog that a reconnect of everybody needs."""
        reactor, factory = MemoryReactorClock(), Factory()
        listen(reactor, TcpPlace("::1", 7), factory, "--port")
        self.assertEqual(reactor.tcpServers, [(7, factory, BACKLOG, "::1")])

    def test_listen_takes_tls(self) -> None:
        """What makes the TLS connections is handed on."""
        reactor, factory, tls = MemoryReactorClock(), Factory(), object()
        listen(reactor, TcpPlace("h", 7, tls), factory, "--port", 5)  # type: ignore[arg-type]
        self.assertEqual(reactor.sslServers, [(7, factory, tls, 5, "h")])

    def test_listen_takes_an_endpoint_string(self) -> None:
        """As Twisted reads it."""
        reactor = MemoryReactorClock()
        listen(reactor, "tcp:7:interface=127.0.0.1", Factory(), "--endpoint")
        listen(reactor, "unix:/run/clasp.sock", Factory(), "--endpoint")
        self.assertEqual([(port, host) for port, _, _, host in reactor.tcpServers], [(7, "127.0.0.1")])
        self.assertEqual([path for path, *_ in reactor.unixServers], ["/run/clasp.sock"])

    def test_port_accepts_few_connections_in_a_turn(self) -> None:
        """However many come, and however often: a hundred would take many ms. The others come with the next turns."""
        came: list[object] = []

        class Counting(Factory):
            def buildProtocol(self, addr: object) -> None:
                came.append(addr)

        class Real(MemoryReactorClock):
            def listenTCP(self, port: int, factory: Factory, *_: Any, **__: Any) -> Any:  # noqa: N802
                listening_port = Port(port, factory, interface="127.0.0.1", reactor=self)
                listening_port.startListening()
                return listening_port

        port: Any = listen(Real(), TcpPlace("127.0.0.1", 0), Counting(), "--port")
        self.addCleanup(port.socket.close)
        for _ in range(3 * ACCEPTED_AT_ONCE):
            self.addCleanup(socket.create_connection(("127.0.0.1", port.getHost().port)).close)
        for number in range(1, 4):
            port.doRead()
            self.assertEqual(len(came), number * ACCEPTED_AT_ONCE)

    def test_listen_names_option_place_and_cause_when_it_cannot(self) -> None:
        """In one line, with the cure."""
        in_use = CannotListenError("h", 7, OSError(98, "Address already in use"))
        odd = CannotListenError("h", 7, "odd\ncause")
        cases: list[tuple[Exception, Where, str, str]] = [
            (
                in_use,
                TcpPlace("h", 7),
                "--auth-port",
                "--auth-port: cannot listen on h:7 (Address already in use); give another --auth-port or --host",
            ),
            (
                odd,
                TcpPlace("h", 7),
                "--port",
                "--port: cannot listen on h:7 (odd cause); give another --port or --host",
            ),
            (
                UnicodeError("label too long"),
                TcpPlace("h", 7),
                "--port",
                "--port: cannot listen on h:7 (label too long); give another --port or --host",
            ),
            (in_use, "tcp:7", "--endpoint", "--endpoint: cannot listen on 'tcp:7' (Address already in use)"),
        ]
        for error, where, option, text in cases:
            with self.subTest(text):
                self.assertEqual(self.refusal(Full(error), where, option), text)

    def test_listen_says_what_is_wrong_with_an_endpoint_string(self) -> None:
        """Unknown types, missing or odd parts, files that are not there."""
        cases = {
            "nothing:7": "Unknown endpoint type: 'nothing'",
            "": "Unknown endpoint type: ''",
            "tcp": "missing 1 required positional argument: 'port'",
            "tcp:x": "invalid literal",
            "tcp:7:colour=red": "unexpected keyword argument 'colour'",
            "ssl:7:privateKey=/nothing.pem": "/nothing.pem: No such file or directory",
        }
        for text, cause in cases.items():
            with self.subTest(text):
                said = self.refusal(MemoryReactorClock(), text, "--endpoint")
                self.assertTrue(said.startswith(f"--endpoint: {text!r} is not a server endpoint ("), said)
                self.assertIn(cause, said)
                self.assertTrue(said.endswith("), expected one like tcp:7330:interface=127.0.0.1"), said)

    def test_listen_refuses_an_endpoint_that_does_not_listen_at_once(self) -> None:
        """A start is done or has failed when it returns: later, after a cancel, or on no port is too late."""
        cancelled: list[object] = []
        later: Deferred[object] = Deferred(cancelled.append)
        cases: list[tuple[object, str]] = [
            (later, "--endpoint: 'odd:' does not listen at once; give an endpoint that does"),
            (succeed("a pipe"), "--endpoint: 'odd:' listens on no port; give an endpoint that does"),
            (fail(OSError(13, "Permission denied")), "--endpoint: cannot listen on 'odd:' (Permission denied)"),
            (fail(ZeroDivisionError()), "--endpoint: cannot listen on 'odd:' (ZeroDivisionError)"),
        ]
        for result, text in cases:
            with self.subTest(text):
                self.patch(listening, "serverFromString", lambda *_, result=result: Odd(result))
                self.assertEqual(self.refusal(MemoryReactorClock(), "odd:", "--endpoint"), text)
        self.assertEqual(cancelled, [later])
