"""A relay with accounts as a process of its own, its HTTP API, and people who are signed in."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from clasp_relay.core.records import Param, StateImage
from clasp_relay.storage.state_file import StateFile
from clasp_relay.storage.state_writing import encode as encode_state
from clasp_relay.wire.messages import Error, Hello, Message, Publish, Result, Set, Snapshot, Welcome
from clasp_relay.wire.values import PyValue, decode_value, encode_value
from tests.integration.process import PATIENCE_S, TWISTD, RelayProcess, RelayTestCase, wait_until
from tests.integration.raw import RawClient

WATCHED = ("-m", "tests.integration.watched_relay")
"""The relay inside a program that can move its clock and watches its event loop."""

PASSWORD = "correct horse"
"""Of everybody who does not say another one."""

_AUTH_LISTENS = re.compile(r"the auth API listens on [0-9.]+:(\d+)")
_LISTENS = re.compile(r"listens on [0-9.]+:(\d+) for WebSocket connections")


class Answer(NamedTuple):
    """An HTTP answer; header names are in lower case."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


class Api:
    """The auth API of a relay, asked with one connection for each call.

    Args:
        port: where it listens.
        source: the address that the calls come from; all of 127.0.0.0/8 are this machine's.
    """

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self.port = port
        self.source = source

    def call(
        self,
        path: str,
        body: object = None,
        bearer: str | None = None,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Makes one call; ``body`` is sent as JSON, bytes as they are."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=PATIENCE_S, source_address=(self.source, 0)
        )
        sent = dict(headers or {})
        if bearer is not None:
            sent["Authorization"] = f"Bearer {bearer}"
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, f"/auth/{path}", data, sent)
            response = connection.getresponse()
            text = response.read()
            got = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, json.loads(text) if text else {}, got)
        finally:
            connection.close()

    def token(self, path: str, body: object = None, bearer: str | None = None, **options: Any) -> str:
        """Returns the token that a call gives."""
        answer = self.call(path, body, bearer, **options)
        if answer.status != 200:
            raise AssertionError(f"no token from {path}: {answer}")
        return str(answer.body["token"])

    def guest(self, user_id: str) -> str:
        """Returns the token of a guest with that id."""
        return self.token("guest", {"user_id": user_id})

    def register(self, username: str, password: str = PASSWORD, user_id: str | None = None) -> str:
        """Returns the token of a new user."""
        body = {"username": username, "password": password}
        return self.token("register", body if user_id is None else {**body, "user_id": user_id})


class AccountsRelay(RelayProcess):
    """A relay with accounts, on two free ports of the loopback."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        command: Sequence[str] = TWISTD,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.auth_port = 0
        where = () if "--auth-port" in options else ("--auth-endpoint", "tcp:0:interface=127.0.0.1")
        super().__init__(folder, *where, *options, command=command, variables=variables)
        wait_until(lambda: self.auth_port or not self.is_running, "the auth API listens")
        if not self.auth_port:
            raise AssertionError("the relay did not start:\n" + self.log)
        self.api = Api(self.auth_port)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                self.lines.append(line)
                if found := _AUTH_LISTENS.search(line):
                    self.auth_port = int(found[1])
                elif found := _LISTENS.search(line):
                    self.port = int(found[1])


class Person(RawClient):
    """A WebSocket client that speaks for a token."""

    @classmethod
    def signed_in(cls, port: int, token: str, **options: Any) -> Self:
        """Returns one who is past HELLO; ``first`` is what the SNAPSHOT after WELCOME held."""
        person = cls(port, **options)
        person.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        person.send(Hello(1, 0xF8, "person", token))
        welcome = person.receive(Welcome)
        person.session = welcome.session
        person.first = person.settle()
        return person

    session = ""
    first: list[Message]

    def ask(self, *messages: Message, qos: int = 0) -> list[Message]:
        """Sends messages and returns all that comes until they have been handled."""
        self.send(*messages, qos=qos)
        return self.settle()

    def code(self, message: Message, qos: int = 0) -> int:
        """Returns the code of the ERROR that answers a message; 0 when it is accepted."""
        return next((each.error for each in self.ask(message, qos=qos) if isinstance(each, Error)), 0)


class AccountsTestCase(RelayTestCase):
    """Runs relays with accounts."""

    def start_accounts(
        self, *options: str, command: Sequence[str] = TWISTD, variables: Mapping[str, str] | None = None
    ) -> AccountsRelay:
        """Starts a relay on the files of the one before it; it ends with the test, if not earlier."""
        relay = AccountsRelay(self.folder, *options, command=command, variables=variables)
        self.addCleanup(self._end, relay)
        return relay

    def sign_in(self, relay: AccountsRelay, token: str, **options: Any) -> Person:
        """Connects somebody until the end of the test."""
        person = Person.signed_in(relay.port, token, **options)
        self.addCleanup(person.close)
        return person

    def guest(self, relay: AccountsRelay, user_id: str) -> Person:
        """Connects a new guest until the end of the test."""
        return self.sign_in(relay, relay.api.guest(user_id))

    def admin(self, relay: AccountsRelay) -> Person:
        """Connects the administrator of a relay with ``--admin-token admin.token``."""
        return self.sign_in(relay, (self.folder / "admin.token").read_text("ascii").strip())


def put_state(path: Path, params: Iterable[Param]) -> None:
    """Writes a state file, for a relay that is started on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = StateFile(path)
    file.load()
    file.save(encode_state(StateImage(list(params), [], {})))


def told(messages: Iterable[Message]) -> list[tuple[str, PyValue]]:
    """Returns address and value of everything that messages show; True for an announced signal."""
    found: list[tuple[str, PyValue]] = []
    for message in messages:
        if isinstance(message, Snapshot):
            found += [(param.address, decode_value(param.value)) for param in message.params]
        elif isinstance(message, Set | Publish):
            found.append((message.address, None if message.value is None else decode_value(message.value)))
        elif isinstance(message, Result):
            found += [(signal.address, True) for signal in message.signals]
    return found


def put(address: str, value: PyValue, **options: Any) -> Set:
    """Returns a SET."""
    return Set(address, encode_value(value), **options)


def event(address: str, value: PyValue) -> Publish:
    """Returns an event."""
    return Publish(address, value=encode_value(value))
