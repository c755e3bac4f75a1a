"""What tests of the engine over a real nats-server have in common."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.nats.engine import NatsEngine
from tests.certificates import issue
from tests.cluster.reactor import Loop
from tests.integration.nats import Nats
from tests.integration.process import PATIENCE_S


class ScriptedServer:
    """Says INFO, answers PING, and is silent about nearly all else; takes one connection after the other.

    Args:
        before: what it says before its first answer of each connection.
        closes_at: a PING that it answers by closing the first connection; 0 for none.
        closes_with: what it says then.
        has_log: whether it says that there is a log.
    """

    def __init__(
        self,
        before: bytes = b"",
        closes_at: int = 0,
        closes_with: bytes = b"",
        has_log: bool = False,
    ) -> None:
        self.received = b""
        self.taken = 0
        """How many connections there were."""
        self._before = before
        self._closes_at = closes_at
        self._closes_with = closes_with
        self._has_log = has_log
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it; whoever was connected has gone."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.taken += 1
                with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
                    self._serve(connection, lines, self._closes_at if self.taken == 1 else 0)

    def _serve(self, connection: socket.socket, lines: Any, closes_at: int) -> None:
        info = {"server_id": "scripted", "version": "2.10.0", "max_payload": 1 << 20, "headers": True}
        connection.sendall(b"INFO %s\r\n" % json.dumps(info | {"jetstream": True}).encode())
        pings, inbox = 0, b""
        for line in lines:
            self.received += line
            if line == b"PING\r\n":
                pings += 1
                if pings == closes_at:
                    connection.sendall(self._closes_with)
                    return
                connection.sendall((self._before if pings == 1 else b"") + b"PONG\r\n")
            elif line.startswith(b"SUB _INBOX") and not inbox:
                inbox = line.split()[-1]
            elif line.startswith(b"PUB $JS.API.STREAM.INFO") and self._has_log:
                answer = json.dumps({"config": {"subjects": ["test.log"], "retention": "limits"}}).encode()
                connection.sendall(b"MSG %s %s %d\r\n%s\r\n" % (line.split()[2], inbox, len(answer), answer))


class EngineCase(SynchronousTestCase):
    """Has a server of its own, not started yet, and an event loop."""

    def setUp(self) -> None:
        """Starts a server."""
        self.nats = Nats.with_password(Path(self.mktemp()).absolute())
        self.addCleanup(self.nats.close)
        self.loop = Loop()
        self.states: list[bool] = []
        self.fatal: list[str] = []

    def engine(
        self, url: str = "", name: str = "test", creds: Path | None = None, more: Sequence[str] = ()
    ) -> NatsEngine:
        """Returns an engine that is ended with the test."""
        engine = NatsEngine(self.loop, (url or self.nats.url, *more), name, creds, "one")
        self.addCleanup(self.stop, engine)
        return engine

    def start(self, engine: NatsEngine) -> NatsEngine:
        """Begins to connect."""
        engine.start(self.states.append, self.fatal.append)
        return engine

    def stop(self, engine: NatsEngine) -> None:
        """Ends an engine."""
        ended: list[bool] = []
        engine.stop(lambda: ended.append(True))
        self.loop.until(lambda: bool(ended))

    def connected(self, name: str = "test") -> NatsEngine:
        """Returns an engine with a connection."""
        engine = self.start(self.engine(name=name))
        self.loop.until(lambda: engine.is_connected)
        return engine

    def encrypt(self) -> str:
        """Has the server speak TLS with a certificate of its own; returns its URL, and trusts nobody but that."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        certificate, key = issue().write(folder)
        config = self.nats.servers[0]._config
        tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}\n'
        config.write_text(config.read_text("utf-8") + tls, "utf-8")
        self.set_variable("SSL_CERT_FILE", str(certificate))
        return self.nats.url.replace("nats://", "tls://").replace("127.0.0.1", "localhost")

    def set_variable(self, name: str, text: str) -> None:
        """Sets an environment variable for the rest of the test; OpenSSL reads the process's own."""
        before = os.environ.get(name)
        os.environ[name] = text
        self.addCleanup(os.environ.pop, name) if before is None else self.addCleanup(os.environ.update, {name: before})

    def scripted(self, **script: Any) -> ScriptedServer:
        """Returns a server that does as it is told, and is ended with the test."""
        server = ScriptedServer(**script)
        self.addCleanup(server.close)
        return server
