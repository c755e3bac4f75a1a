"""Tests of clasp_relay.assembly.followed_rows: auth servers of one cluster, with real threads and files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import TestCase

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.files import Files
from clasp_relay.access.names import fold_name
from clasp_relay.access.permissions import TokenPermissions
from clasp_relay.access.policy import Policy
from clasp_relay.access.tokens import TokenTable, TokenUnknown
from clasp_relay.assembly.auth_server import AuthServer, Rights, Tells
from clasp_relay.assembly.auth_site import Clients, Core
from clasp_relay.command_line import account_commands, admin_commands
from clasp_relay.http.cors import Origins
from clasp_relay.net.turn import TurnWriter
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.push.web_push import WebPush
from clasp_relay.settings import Settings
from clasp_relay.storage.push_subscriptions import Subscription
from clasp_relay.storage.session_ids import GivenId
from clasp_relay.storage.users import PersonGone
from tests.access.test_shared_files import MemoryObjects
from tests.assembly.running import PATIENCE_S, Running
from tests.cluster.account_world import Place, World
from tests.core.world import World as CoreWorld
from tests.http.memory_site import Answer
from tests.rules.test_watcher import SEES_ALL

REACTOR: Any = reactor
URLS = ("nats://127.0.0.1:4222",)
TURN_S = 0.02
"""How often, and by how much, the clock of a relay's core goes on."""


class Relay(Running, Place):
    """An auth server of a cluster, that is open and started."""

    def __init__(self, world: World, name: str, folder: Path, objects: MemoryObjects, **settings: Any) -> None:
        Place.__init__(self, world, name)
        self.folder = folder
        given: dict[str, Any] = {"data_dir": folder, "web_root": "none", "cluster": URLS} | settings
        self.settings = Settings(**given)
        self.tokens = TokenTable(REACTOR, time.time)
        self.ended: list[bytes] = []
        self.tokens.on_end(lambda record, _why: self.ended.append(record.digest))
        self.core = CoreWorld()
        self.calls: list[tuple[str, ...]] = []
        policy = Policy.packaged("chat")
        relay = self.core.relay
        self.server = AuthServer(
            self.settings,
            REACTOR,
            Rights(self.tokens, TokenPermissions(self.tokens, policy, lambda: time.time_ns() // 1000), policy),
            Clients(Origins(None), ClientAddresses(())),
            Core(relay, ClaspFactory(relay, TurnWriter(REACTOR), REACTOR)),
            Tells(lambda *call: self.calls.append(call)),
            push=WebPush(self.settings, REACTOR, relay, SEES_ALL, lambda *_: True),
            shared=self.accounts,
            objects=objects,
        )
        self.site = self.server.open()
        self.server.startService()
        self._time = LoopingCall(self.core.clock.clock.advance, TURN_S)
        self._time.start(TURN_S)

    @property
    def files(self) -> Files:
        """What users have sent."""
        assert self.server.files is not None, "takes no files"
        return self.server.files

    def is_valid(self, token: str) -> bool:
        """Tells whether a token lets somebody in here."""
        try:
            self.tokens.lookup(token)
        except TokenUnknown:
            return False
        return True

    async def stop(self) -> None:
        """Stops it in order."""
        if self._time.running:
            self._time.stop()
        self.accounts.stop()
        self.is_dead = True
        await self.server.stopService()


class SharedTests(TestCase):
    """Two relays of a cluster."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Starts them."""
        self.patch(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("CLASP_")})
        await self.start()

    async def start(self, **settings: Any) -> None:
        """Starts two relays as one."""
        self.world = World(REACTOR)
        self.objects = MemoryObjects()
        self.one, self.two = self.relay("one", **settings), self.relay("two", **settings)
        self.world.decide(self.one)
        await self.until(lambda: self.two.accounts.is_ready and not self.one.accounts.replica.has_base)

    def relay(self, name: str, **settings: Any) -> Relay:
        """Starts a relay on a folder of its own, until the end of the test."""
        relay = Relay(self.world, name, Path(self.mktemp()).absolute(), self.objects, **settings)
        self.addCleanup(relay.stop)
        return self.world.begin(relay)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Waits until something is so."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not is_so():
            if time.monotonic() > deadline_s:
                raise AssertionError("it did not come to be so")
            await deferLater(REACTOR, 0.01)

    async def ask(self, relay: Relay, path: str, body: object = None, bearer: str = "", status: int = 200) -> Answer:
        """Posts something, and asserts how it is answered."""
        answer = await relay.ask("GET" if body is None else "POST", path, body, bearer)
        self.assertEqual(answer.status, status, answer.json)
        return answer

    async def register(self, relay: Relay, name: str = "Ann") -> str:
        """Registers somebody and returns the token."""
        answer = await self.ask(relay, "/auth/register", {"username": name, "password": "password"})
        token: str = answer.json["token"]
        return token

    def command(self, relay: Relay, *arguments: str) -> str:
        """Does what ``clasp-relay token`` and the like do beside a relay."""
        out = StringIO()
        run = admin_commands.run if arguments[0] == "admin" else account_commands.run
        run((*arguments[arguments[0] == "admin" :], "--data-dir", str(relay.folder)), out)
        return out.getvalue().strip()

    async def test_an_account_is_good_on_both(self) -> None:
        """The token at once, the password, too; the name is taken on both."""
        token = await self.register(self.two)
        self.assertTrue(self.two.is_valid(token))
        await self.until(lambda: self.one.is_valid(token))
        await self.ask(self.one, "/auth/login", {"username": "ann", "password": "password"})
        await self.ask(self.one, "/auth/register", {"username": "ANN", "password": "password"}, status=409)
        me = await self.ask(self.one, "/auth/me", bearer=token)
        self.assertEqual(me.json["username"], "Ann")

    async def test_who_has_registered_signs_in_at_once_elsewhere(self) -> None:
        """However far the other relay is behind: it looks again before it says no."""
        taken = self.two.take_log
        self.two.take_log = lambda: None  # type: ignore[method-assign]
        await self.register(self.one)
        asked = ensureDeferred(self.two.ask("POST", "/auth/login", {"username": "Ann", "password": "password"}))
        await deferLater(REACTOR, 0.2)
        self.assertNoResult(asked)
        self.two.take_log = taken  # type: ignore[method-assign]
        taken()
        answer = await asked
        self.assertEqual(answer.status, 200)

    async def test_a_token_is_known_elsewhere_before_it_is_refused(self) -> None:
        """However far the other relay is behind; one that nobody has issued is refused."""
        taken = self.two.take_log
        self.two.take_log = lambda: None  # type: ignore[method-assign]
        token = await self.register(self.one)
        asked = ensureDeferred(self.two.ask("GET", "/auth/me", bearer=token))
        await deferLater(REACTOR, 0.2)
        self.assertNoResult(asked)
        self.two.take_log = taken  # type: ignore[method-assign]
        taken()
        self.assertEqual((await asked).status, 200)
        await self.ask(self.two, "/auth/me", bearer="cpsk_" + "0" * 32, status=401)

    async def test_file_is_sent_read_and_removed_at_any(self) -> None:
        """With a token that the relay does not know yet, too; copies of what is gone go at both."""
        taken = self.two.take_log
        self.two.take_log = lambda: None  # type: ignore[method-assign]
        token = await self.register(self.one)
        sending = ensureDeferred(self.two.ask("POST", "/files", {"picture": 1}, token))
        await deferLater(REACTOR, 0.2)
        self.assertNoResult(sending)
        self.two.take_log = taken  # type: ignore[method-assign]
        taken()
        sent = await sending
        self.assertEqual(sent.status, 201, sent.json)
        path = f"/files/{sent.json['id']}"
        files = [relay.files for relay in (self.one, self.two)]
        for relay in (self.one, self.two, self.one):
            self.assertEqual((await relay.ask("GET", path, bearer=token)).json, {"picture": 1})
        await self.until(
            lambda: [(each.stored, each.used_bytes, each.copies) for each in files] == [(1, 4096, (1, 4096))] * 2
        )
        self.assertEqual((await self.one.ask("DELETE", path, bearer=token)).status, 200)
        for relay in (self.one, self.two):
            self.assertEqual((await relay.ask("GET", path, bearer=token)).status, 404)
        await self.until(lambda: [(each.stored, each.copies) for each in files] == [(0, (0, 0))] * 2)
        self.assertEqual(self.objects.objects, {})
        refused = await self.two.ask("POST", "/files", {"picture": 1}, "cpsk_" + "0" * 32)
        self.assertEqual(refused.status, 401)

    async def test_files_of_who_is_deleted_go(self) -> None:
        """Whichever relay is asked; files of a guest are the user's who the guest becomes."""
        guest = (await self.ask(self.one, "/auth/guest", {"user_id": "gus"})).json["token"]
        await self.until(lambda: self.two.is_valid(guest))
        for relay in (self.one, self.two):
            self.assertEqual((await relay.ask("POST", "/files", {"picture": 1}, guest)).status, 201)
        body = {"username": "Gus", "password": "password", "user_id": "gus"}
        user = (await self.ask(self.two, "/auth/register", body, guest)).json["token"]
        await self.until(lambda: self.one.is_valid(user))
        for relay in (self.one, self.two):
            used = await relay.files.usage(["gus"])
            self.assertEqual([tuple(each) for each in used], [("gus", b"", 2, 8192)])
            files = relay.files
            await self.until(lambda files=files: files.used_by_guests_bytes == 0)  # type: ignore[misc]
        self.assertEqual(await self.two.files.remove_all_of("gus"), 2)
        self.assertEqual(self.objects.objects, {})

    async def test_another_password_ends_all_tokens_but_one(self) -> None:
        """On both relays, console tokens included."""
        token = await self.register(self.one)
        self.command(self.one, "admin", "grant", "Ann")
        answer = await self.ask(self.two, "/auth/login", {"username": "Ann", "password": "password"})
        other = answer.json["token"]
        await self.until(lambda: self.one.is_valid(other) and self.two.is_valid(token))
        console = await self.console(self.two)
        await self.ask(self.one, "/auth/password", {"old": "password", "new": "other password"}, token)
        await self.until(lambda: not self.two.is_valid(other))
        self.assertFalse(self.one.is_valid(other))
        self.assertTrue(self.two.is_valid(token))
        await self.ask(self.two, "/api/admin/me", bearer=console, status=401)
        await self.ask(self.two, "/auth/login", {"username": "Ann", "password": "password"}, status=401)
        await self.ask(self.two, "/auth/login", {"username": "Ann", "password": "other password"})

    def is_written(self, relay: Relay, name: str) -> bool:
        """Tells whether a relay's file has a user."""
        assert relay.server._store is not None
        try:
            return bool(relay.server._store.administration.find(name, fold_name(name)))
        except PersonGone:
            return False

    async def console(self, relay: Relay) -> str:
        """Signs Ann in to the console of a relay, as soon as that one knows that she may."""
        found: list[str] = []
        deadline_s = time.monotonic() + PATIENCE_S
        while not found and time.monotonic() < deadline_s:
            answer = await relay.ask("POST", "/auth/admin", {"username": "Ann", "password": "password"})
            if answer.status == 200:
                found.append(answer.json["token"])
            else:
                await deferLater(REACTOR, 0.05)
        return found[0]

    async def test_a_stronger_hash_ends_nothing(self) -> None:
        """The password is the same."""
        await self.register(self.one)
        self.command(self.one, "admin", "grant", "Ann")
        console = await self.console(self.two)
        store, user = self.one.server._store, None
        assert store is not None
        user = store.user(next(iter(self.one.tokens._by_subject)))
        assert user is not None
        await self.one.accounts.run("", lambda: None, store.replace_hash, user, "stronger")
        await self.until(lambda: self.two.accounts.replica.number == self.one.accounts.replica.number)
        await self.ask(self.two, "/api/admin/me", bearer=console)

    async def test_a_token_is_refreshed_and_signed_out_anywhere(self) -> None:
        """Both relays follow."""
        token = await self.register(self.one)
        await self.until(lambda: self.two.is_valid(token))
        answer = await self.ask(self.two, "/auth/refresh", {}, token)
        new = answer.json["token"]
        await self.until(lambda: self.one.is_valid(new))
        listed = await self.ask(self.one, "/auth/sessions", bearer=new)
        self.assertEqual(len(listed.json), 1)
        await self.ask(self.one, "/auth/logout", {}, new)
        await self.until(lambda: not self.two.is_valid(new) and not self.two.is_valid(token))
        self.assertFalse(self.one.is_valid(token))

    async def test_a_device_token_of_a_command_is_good_on_both(self) -> None:
        """Until a command at the other relay revokes it."""
        token = self.command(self.two, "token", "create", "--scopes", "read:/**")
        await self.until(lambda: self.one.is_valid(token) and self.two.is_valid(token))
        await self.until(lambda: len(self.command(self.one, "token", "list").splitlines()) == 2)
        (line,) = self.command(self.one, "token", "list").splitlines()[1:]
        self.command(self.one, "token", "revoke", line.split()[0])
        await self.until(lambda: not self.one.is_valid(token) and not self.two.is_valid(token))

    async def test_what_administrators_decide_holds_on_both(self) -> None:
        """Who is disabled is out, and who may register is known."""
        token = await self.register(self.one)
        # Its token is known there before its row is in the file, which the command reads.
        await self.until(lambda: self.is_written(self.two, "Ann"))
        self.command(self.two, "admin", "disable", "Ann")
        await self.until(lambda: not self.one.is_valid(token) and not self.two.is_valid(token))
        await self.ask(self.one, "/auth/login", {"username": "Ann", "password": "password"}, status=403)
        self.command(self.one, "admin", "enable", "Ann")
        self.command(self.one, "admin", "grant", "Ann")
        console = await self.console(self.two)
        chosen = await self.two.ask("PATCH", "/api/admin/registration", {"registration": "closed"}, console)
        self.assertIn(chosen.status, (200, 404, 405), chosen.json)

    async def test_an_invite_works_once_over_both(self) -> None:
        """Made by a command at one of them."""
        await self.start(registration="invite")
        invite = self.command(self.one, "invite", "create")
        bodies = [{"username": name, "password": "password", "invite": invite} for name in ("Ann", "Bob")]
        await self.until(lambda: bool(self.two.server._store and self.two.server._store.invites(int(time.time()))))
        await self.ask(self.two, "/auth/register", bodies[0])
        await self.ask(self.one, "/auth/register", bodies[1], status=403)

    async def test_a_guest_who_registers_is_a_user_on_both(self) -> None:
        """With the id of before."""
        answer = await self.ask(self.one, "/auth/guest", {"name": "Ann"})
        guest = answer.json
        await self.until(lambda: self.two.is_valid(guest["token"]))
        body = {"username": "Ann", "password": "password", "user_id": guest["user_id"]}
        await self.ask(self.two, "/auth/register", body, guest["token"])
        await self.until(lambda: self.one.tokens.is_user(guest["user_id"]))

    async def test_client_addresses_count_the_same_on_both(self) -> None:
        """They have one key, which its file has, too."""
        self.assertEqual(self.one.server.origin_of("192.0.2.1"), self.two.server.origin_of("192.0.2.1"))
        keys = {(relay.folder / "users.db.key").read_bytes() for relay in (self.one, self.two)}
        self.assertEqual(len(keys), 1)

    async def test_addresses_and_session_ids_are_known_on_both(self) -> None:
        """Strangers lock nobody out at either relay, and a client may reconnect to the other one."""
        await self.register(self.one)
        (known,) = self.one.server._known._last_used_s
        await self.until(lambda: self.two.server._known.knows(*known))
        given = GivenId("s1", "u1", int(time.time()))
        store = self.one.server._store
        assert store is not None
        await self.one.accounts.run("", lambda: None, store.session_ids.note, [given], [], 0)
        ids = self.two.server._session_ids
        await self.until(lambda: ids.own_until_us("u1", "s1", time.time_ns() // 1_000) is not None)

    async def test_browsers_are_known_on_both(self) -> None:
        """And push services know both relays by one key."""
        one, two = self.one.server.push, self.two.server.push
        assert one is not None
        assert two is not None
        await self.until(lambda: one.public_key == two.public_key)
        guest = (await self.ask(self.one, "/auth/guest", {"name": "Ann"})).json
        await self.until(lambda: self.two.is_valid(guest["token"]))
        found = Subscription("https://push.example/1", guest["user_id"], b"key", b"auth", b"s", int(time.time()))
        store = self.one.server._store
        assert store is not None
        await self.one.accounts.run("", lambda: None, store.push.add, found)
        await self.until(lambda: two.subscriptions.of(guest["user_id"]) == [found])
        self.assertEqual(sum(two.subscriptions._by_address.values()), 1)
        await self.one.accounts.run("", lambda: None, store.push.remove, [found.endpoint])
        await self.until(lambda: not two.subscriptions.has_any(guest["user_id"]))

    async def test_a_newcomer_takes_all_into_memory(self) -> None:
        """Tokens, browsers, session ids, and what is decided."""
        token = await self.register(self.one)
        self.command(self.one, "admin", "grant", "Ann")
        device = self.command(self.one, "token", "create", "--scopes", "read:/**")
        await self.until(lambda: self.two.is_valid(device))
        sent = await self.one.ask("POST", "/files", {"picture": 1}, token)
        pieces: list[list[bytes]] = []
        self.one.accounts.replica.capture(pieces.append, lambda: None)
        await self.until(lambda: bool(pieces))
        newcomer = Relay(self.world, "three", Path(self.mktemp()).absolute(), self.objects)
        self.addCleanup(newcomer.stop)
        newcomer.followed = len(self.world.log)
        done: list[int] = []
        newcomer.accounts.replica.install(pieces[0], lambda: done.append(1))
        await self.until(lambda: bool(done))
        self.world.begin(newcomer)
        self.assertTrue(newcomer.is_valid(token))
        self.assertEqual(newcomer.files.stored, 1)
        got = await newcomer.ask("GET", f"/files/{sent.json['id']}", bearer=token)
        self.assertEqual(got.json, {"picture": 1})
        self.assertTrue(newcomer.is_valid(device))
        await self.until(lambda: newcomer.accounts.is_ready)
        self.assertTrue(await self.console(newcomer))
        self.assertEqual(newcomer.fatal, [])

    async def test_a_relay_that_was_away_has_all_when_it_is_back(self) -> None:
        """From the log, as far as its file goes."""
        await self.two.stop()
        token = await self.register(self.one)
        again = Relay(self.world, "two", self.two.folder, self.objects)
        self.addCleanup(again.stop)
        again.followed = 0
        self.world.begin(again)
        await self.until(lambda: again.is_valid(token))
        self.assertEqual(again.fatal, [])
