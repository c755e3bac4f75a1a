"""The npm client and the Python client with tokens: let in, refused, talking in a room of the chat, and thrown out."""

from __future__ import annotations

import asyncio
import time
import uuid
from http import HTTPStatus
from typing import Any

from clasp.client import ClaspError

from tests.integration.accounts import AccountsRelay, AccountsTestCase
from tests.integration.node import NodeProcess
from tests.integration.process import PATIENCE_S
from tests.integration.python_client import Watched, until

ROOM = "/chat/room/r1"
SUBSCRIBED = (f"{ROOM}/messages", f"{ROOM}/presence/*", f"{ROOM}/meta")
REFUSALS = {"none": "a token is needed", "bad": "the token is not valid", "old": "the token has expired"}
REVOKED = "the token was revoked: sign in again"


class ChatMember(Watched):
    """A Python client that waits at an address which a chat token may read."""

    async def round_trip(self) -> None:
        """See ``Watched``."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await self.client.get(f"/chat/registry/rooms/{uuid.uuid4()}", timeout=PATIENCE_S) is None


class ClientCase(AccountsTestCase):
    relay: AccountsRelay

    def setUp(self) -> None:
        """Starts a relay under the chat's policy."""
        super().setUp()
        self.relay = self.start_accounts("--app-config", "chat", "--token-ttl", "60")

    def useless_tokens(self) -> dict[str, str]:
        """Returns tokens that let nobody in, by what is wrong with them."""
        relay = self.start_accounts("--app-config", "chat", "--token-ttl", "1", "--data-dir", "short")
        old = relay.api.guest("old")
        self.relay = relay
        deadline_s = time.monotonic() + PATIENCE_S
        while relay.api.call("me", bearer=old, method="GET").status != HTTPStatus.UNAUTHORIZED:
            self.assertLess(time.monotonic(), deadline_s, "the token does not expire")
            time.sleep(0.05)
        return {"none": "", "bad": "cpsk_" + 32 * "0", "old": old}


class JsClientTests(ClientCase):
    """``@clasp-to/core``."""

    def member(self, token: str) -> NodeProcess:
        """Starts a client and has it connect."""
        process = NodeProcess("member.mjs", self.relay.url)
        self.addCleanup(process.kill)
        process.tell(["connect", token])
        return process

    def do(self, member: NodeProcess, *command: Any) -> Any:
        """Has a client do something, and returns what it says."""
        member.tell(list(command))
        return member.hear()

    def test_client_is_told_why_it_is_not_let_in(self) -> None:
        """The close reason is what its ``connect`` fails with."""
        for kind, token in self.useless_tokens().items():
            with self.subTest(kind):
                self.assertIn(REFUSALS[kind], self.member(token).hear()["refused"])

    def test_clients_talk_in_a_room_and_one_is_thrown_out(self) -> None:
        """A stranger hears nothing; whose token is revoked is told so, and is out for the others too."""
        tokens = {name: self.relay.api.guest(name) for name in ("ann", "bob", "eve")}
        ann, bob, eve = members = [self.member(token) for token in tokens.values()]
        self.assertEqual([len(member.hear()["session"]) for member in members], [36] * 3)
        self.do(ann, "set", f"{ROOM}/meta", {"name": "R", "isPublic": True})
        for member in members:
            self.do(member, "subscribe", *SUBSCRIBED)
        self.do(ann, "set", f"{ROOM}/presence/ann", {"name": "Ann"})
        self.do(bob, "set", f"{ROOM}/presence/bob", {"name": "Bob"})
        for member in members:
            self.do(member, "came")
        self.do(bob, "emit", f"{ROOM}/messages", {"text": "hi", "userId": "bob"})
        self.do(bob, "emit", f"{ROOM}/messages", {"text": "forged", "userId": "ann"})
        self.do(eve, "emit", f"{ROOM}/messages", {"text": "from outside"})
        message = [f"{ROOM}/messages", {"text": "hi", "userId": "bob"}]
        self.assertEqual(self.do(ann, "came"), [message])
        self.assertEqual(self.do(eve, "came"), [])
        self.assertEqual(self.do(eve, "get", f"{ROOM}/meta")["value"]["creatorId"], "ann")
        self.do(ann, "set", f"{ROOM}/receipts/ann", {"n": 1})
        self.assertEqual(
            [self.do(each, "get", f"{ROOM}/receipts/ann")["value"] for each in (bob, eve)],
            [{"n": 1, "userId": "ann"}, None],
        )
        self.assertEqual(self.relay.api.call("logout", None, tokens["bob"]).status, 200)
        self.assertEqual(bob.hear(), {"closed": REVOKED})
        self.do(ann, "emit", f"{ROOM}/messages", {"text": "alone"})


class PythonClientTests(ClientCase):
    """``clasp-to``."""

    def client(self, token: str) -> ChatMember:
        """Makes a client that is not connected."""
        watched = ChatMember(self.relay.url)
        watched.client.token = token
        watched.client.reconnect = False
        return watched

    def test_client_is_told_why_it_is_not_let_in(self) -> None:
        """The close reason stands in the error of its ``connect``."""

        async def refused(token: str) -> str:
            try:
                await self.client(token).client.connect()
            except ClaspError as error:
                return str(error)
            raise AssertionError("it was let in")

        for kind, token in self.useless_tokens().items():
            with self.subTest(kind):
                self.assertIn(REFUSALS[kind], asyncio.run(refused(token)))

    def test_clients_talk_in_a_room_and_one_is_thrown_out(self) -> None:
        """A stranger hears nothing; whose token is revoked is told so."""
        tokens = {name: self.relay.api.guest(name) for name in ("ann", "bob", "eve")}

        async def run() -> None:
            ann, bob, eve = people = [self.client(token) for token in tokens.values()]
            for person in people:
                await person.client.connect()
            await ann.client.set(f"{ROOM}/meta", {"name": "R", "isPublic": True})
            await ann.round_trip()
            came = [await person.subscribe(f"{ROOM}/messages") for person in people]
            await bob.client.set(f"{ROOM}/presence/bob", {"name": "Bob"})
            await bob.client.emit(f"{ROOM}/messages", {"text": "hi", "userId": "bob"})
            await bob.client.emit(f"{ROOM}/messages", {"text": "forged", "userId": "ann"})
            await bob.round_trip()
            await eve.client.emit(f"{ROOM}/messages", {"text": "from outside"})
            for person in (eve, ann):
                await person.round_trip()
            self.assertEqual(came, [[(f"{ROOM}/messages", {"text": "hi", "userId": "bob"})], [], []])
            reasons: list[str | None] = []
            bob.client.on_disconnect(reasons.append)
            await asyncio.to_thread(self.relay.api.call, "logout", None, tokens["bob"])
            await until(lambda: reasons, "the end of the session")
            self.assertIn(REVOKED, str(reasons[0]))
            self.assertEqual([person.errors for person in people], [[], [], []])
            for person in people:
                await person.client.close()

        asyncio.run(run())
