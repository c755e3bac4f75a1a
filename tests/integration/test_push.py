"""Push messages and calls at a relay as a process; a push service on the loopback reads what it gets."""

from __future__ import annotations

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from clasp_relay.wire.messages import NULL, Set
from tests.certificates import HOST, issue
from tests.integration.accounts import AccountsRelay, AccountsTestCase, Person, event, put
from tests.integration.process import wait_until
from tests.integration.test_tls import DENYING
from tests.push.push_service import Browser, Received, check_vapid

ROOM, DM = "/chat/room/r1", "/chat/room/dm-ann-bob"


class Service:
    """A push service in a thread: it decrypts what it gets for its browsers.

    Args:
        folder: where its certificate is written.
    """

    def __init__(self, folder: Path) -> None:
        self.browsers: dict[str, Browser] = {}
        self.received: list[Received] = []
        self.status = 201
        service = self

        class Handler(BaseHTTPRequestHandler):
            """Takes a message."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                name = self.path[1:]
                payload = json.loads(service.browsers[name].read(body))
                headers = {key.lower(): text for key, text in self.headers.items()}
                service.received.append(Received(name, payload, headers))
                self.send_response(service.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Is silent."""

        self.certificate, key = issue().write(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.place = f"{HOST}:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends it."""
        self.server.shutdown()
        self.server.server_close()

    def subscription(self, name: str) -> dict[str, object]:
        """Returns that of a new browser."""
        browser = self.browsers[name] = Browser()
        return browser.subscription(f"https://{self.place}/{name}")


class PushTests(AccountsTestCase):
    """A relay that may send to the push service of the test."""

    def setUp(self) -> None:
        """Starts both."""
        super().setUp()
        self.service = Service(self.folder)
        self.addCleanup(self.service.close)
        self.secret = self.folder / "turn.secret"
        self.secret.write_text("s3cret\n", "ascii")
        self.relay = self.begin()

    def begin(self, *more: str) -> AccountsRelay:
        """Starts the relay on the files of the one before, without memory that is writable and executable."""
        options = ("--push-allow", self.service.place, "--push-contact", "mailto:op@relay.example")
        turn = ("--turn-url", "turn:t.example:3478", "--turn-secret", str(self.secret))
        trust = {"SSL_CERT_FILE": str(self.service.certificate)}
        return self.start_accounts(
            "--app-config", "chat", *options, *turn, *more, command=("-c", DENYING), variables=trust
        )

    def call(self, method: str, path: str, token: str, body: object = None) -> tuple[int, Any]:
        """Calls the auth API."""
        answer = self.relay.api.call(path, body, token, method=method)
        return answer.status, answer.body

    def heard(self, count: int) -> list[dict[str, str]]:
        """Waits for messages, and a while for one too many; returns what they say and forgets them."""
        wait_until(lambda: len(self.service.received) >= count, f"{count} push messages come")
        time.sleep(0.3)
        found = [received.payload for received in self.service.received]
        self.service.received.clear()
        return found

    def enter(self, person: Person, user: str, room: str = ROOM) -> None:
        """Goes into a room, and becomes a member."""
        self.assertEqual(person.code(put(f"{room}/presence/{user}", {"name": user})), 0)
        self.assertEqual(person.code(put(f"{room}/members/{user}", {"name": user})), 0)

    def test_people_who_are_away_are_told(self) -> None:
        """Encrypted for their browser; not while a page is on screen, and no more once the browser is gone."""
        ann, bob = self.relay.api.guest("ann"), self.relay.api.guest("bob")
        key = self.call("GET", "push", ann)[1]["public_key"]
        self.assertEqual(self.call("POST", "push", bob, self.service.subscription("b")), (201, {}))
        status, body = self.call("POST", "push", bob, Browser().subscription("https://localhost:1/"))
        self.assertEqual(status, 400)
        self.assertIn("public internet", body["error"])
        here, there = self.sign_in(self.relay, ann), self.sign_in(self.relay, bob)
        self.assertEqual(here.code(put(f"{DM}/meta", {"dmUsers": {"ann": "A", "bob": "B"}, "isPublic": False})), 0)
        self.assertEqual(here.code(put(f"{ROOM}/meta", {"name": "Room", "isPublic": True})), 0)
        for person, user in ((here, "ann"), (there, "bob")):
            self.enter(person, user)
            self.enter(person, user, DM)
        visible = f"/chat/user/bob/visible/{there.session}"
        self.assertEqual(there.code(put(visible, {"since": 1})), 0)
        self.assertEqual(here.code(event(f"{DM}/messages", {"text": "seen"})), 0)
        self.assertEqual(there.code(Set(visible, NULL)), 0)
        there.close()
        for said, room in (({"text": "hi"}, DM), ({"text": "hi"}, ROOM), ({"text": "@B", "mentions": ["bob"]}, ROOM)):
            self.assertEqual(here.code(event(f"{room}/messages", said)), 0)
        wait_until(lambda: len(self.service.received) >= 2, "both push messages come")
        proof = self.service.received[0].headers["authorization"]
        self.assertEqual(check_vapid(proof, f"https://{self.service.place}", key)["sub"], "mailto:op@relay.example")
        found = sorted((said["kind"], said["room"]) for said in self.heard(2))
        self.assertEqual(found, [("dm", "dm-ann-bob"), ("mention", "r1")])
        self.relay.kill()
        self.relay = self.begin()
        self.assertEqual(self.call("GET", "push", ann)[1]["public_key"], key)
        self.service.status = 410
        here = self.sign_in(self.relay, ann)
        self.assertEqual(here.code(event(f"{DM}/messages", {"text": "again"})), 0)
        self.assertEqual(self.heard(1), [{"room": "dm-ann-bob", "kind": "dm"}])
        self.relay.kill()
        self.relay = self.begin()
        self.assertIn("subscribed browsers: 0", self.relay.log)

    def test_people_in_a_call_may_use_the_turn_server(self) -> None:
        """At the id of their own session, of which the relay knows after a restart, too; the place ends with it."""
        ann = self.relay.api.guest("ann")
        here = self.sign_in(self.relay, ann)
        first = f"{ROOM}/video/presence/{here.session}"
        self.assertEqual(self.call("GET", "turn", ann)[0], 403)
        self.assertEqual(here.code(put(f"{ROOM}/video/presence/0000", {"name": "A"})), 403)
        self.assertEqual(here.code(put(first, {"name": "A"})), 0)
        status, body = self.call("GET", "turn", ann)
        (server,) = body["ice_servers"]
        self.assertEqual((status, server["urls"]), (200, ["turn:t.example:3478"]))
        self.assertEqual(server["username"], f"{body['expires_at']}:ann")
        here.close()
        wait_until(lambda: self.call("GET", "turn", ann)[0] == 403, "the place in the call ends")
        self.relay.kill()
        self.relay = self.begin("--push", "off")
        self.assertEqual(self.call("GET", "push", ann)[0], 404)
        again = self.sign_in(self.relay, ann)
        self.assertEqual(again.code(put(first, {"name": "A"})), 0)
        bob = self.guest(self.relay, "bob")
        self.assertEqual(bob.code(put(f"{ROOM}/video/presence/{again.session}", {"name": "B"})), 403)
