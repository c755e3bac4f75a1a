"""Tests of clasp_relay.access.people: what administrators see of people, and do with them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import people as module
from clasp_relay.access.devices import make_device
from clasp_relay.access.people import AGAIN_S, SOON_S, Deleted, Kind
from clasp_relay.access.refusals import BadInput, Forbidden, Missing, Taken
from clasp_relay.core.history.memory import MemoryHistory
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.users import StoreBusy
from clasp_relay.wire.messages import Publish, Set
from tests.access.console_world import ConsoleWorld, MemoryFiles, digest_is_valid, result_of
from tests.access.stack import HOME, START_S
from tests.core.world import value


class PeopleTests(SynchronousTestCase):
    """The administrator Root, the user Alice (a1), and the guest Gina (g1)."""

    def setUp(self) -> None:
        """Makes them."""
        self.files = MemoryFiles()
        self.world = ConsoleWorld(files=self.files)
        self.addCleanup(self.world.close)
        self.people = self.world.people
        self.root = self.world.root
        self.tokens = {"a1": self.world.register("Alice", "a1"), "g1": self.world.guest("Gina", "g1")}

    def ids(self, search: str = "", kind: Kind = "all", limit: int = 10) -> list[str]:
        """Returns the ids of all pages."""
        found: list[str] = []
        after: list[str] | None = []
        while after is not None:
            page, after = self.world.do(self.people.page(search, kind, after, limit))
            self.assertLessEqual(len(page), limit)
            found += [each.person.user_id for each in page]
        return found

    def test_people_are_listed_in_pages(self) -> None:
        """Of any size, and as a search goes."""
        self.world.register("Bob", "b1")
        self.world.guest("Hugo", "h1")
        everybody = ["a1", "b1", "root", "g1", "h1"]
        for limit in (1, 2, 3, 5, 10):
            self.assertEqual(self.ids(limit=limit), everybody)
        self.assertEqual(self.ids(kind="user"), everybody[:3])
        self.assertEqual(self.ids(kind="guest"), everybody[3:])
        self.assertEqual(self.ids("O"), ["b1", "root", "h1"])
        self.assertEqual(self.ids("g1"), ["g1"])
        self.patch(module, "EXAMINED_AT_ONCE", 1)
        self.assertEqual(self.ids("1", limit=2), ["a1", "b1", "g1", "h1"])
        self.assertEqual(self.ids("nobody"), [])

    def test_person_is_described(self) -> None:
        """With what is connected, set, and sent."""
        client = self.world.world.join(self.tokens["a1"])
        client.send(Set("/x", value("12345678")))
        self.files.sizes["a1"] = [5, 6]
        self.world.stack.clock.advance(60)
        info, devices = self.world.do(self.people.one("a1"))
        expected = {
            "user_id": "a1",
            "username": "Alice",
            "kind": "user",
            "admin": False,
            "disabled": False,
            "created_at": START_S,
            "last_seen": START_S + 60,
            "sessions": 1,
            "sign_ins": 1,
            "params": 1,
            "bytes": len("/x") + len(value("12345678")),
            "files": 2,
            "file_bytes": 11,
        }
        self.assertEqual(info.as_json(), expected)
        self.assertEqual(self.people.last_seen(devices[0], "a1"), START_S + 60)
        client.leave()
        info, devices = self.world.do(self.people.one("a1"))
        self.assertEqual((info.last_seen_s, info.sessions), (START_S, 0))
        self.assertEqual(self.people.last_seen(devices[0], "a1"), START_S)
        self.assertRaises(Missing, self.world.do, self.people.one("nobody"))
        self.assertEqual(self.world.do(self.people.counts()), (2, 0))
        self.assertTrue(self.world.do(self.people.is_account("a1")))
        self.assertFalse(self.world.do(self.people.is_account("g1")))

    def test_disabled_person_without_a_token_is_out_at_once(self) -> None:
        """Who came by name and password, as MQTT has it, and has no token."""
        record = result_of(self.world.stack.accounts.sign_in("Alice", "password", HOME))
        self.assertIsNotNone(self.world.stack.tokens.find(record.digest))
        self.world.do(self.people.disable(self.root, HOME, "a1"))
        self.assertIsNone(self.world.stack.tokens.find(record.digest))
        self.assertRaises(Forbidden, result_of, self.world.stack.accounts.sign_in("Alice", "password", HOME))
        self.world.do(self.people.enable(self.root, HOME, "a1"))
        again = result_of(self.world.stack.accounts.sign_in("Alice", "password", HOME))
        self.assertIsNotNone(self.world.stack.tokens.find(again.digest))

    def test_disabled_person_is_out_at_once(self) -> None:
        """Sessions and tokens end; an enabled one signs in again."""
        client = self.world.world.join(self.tokens["a1"])
        self.world.do(self.people.disable(self.root, HOME, "a1"))
        self.assertIsNotNone(client.outbox.closed)
        self.assertEqual(self.world.live_tokens("a1"), 0)
        self.assertRaises(Forbidden, result_of, self.world.stack.accounts.login("Alice", "password", HOME))
        self.world.do(self.people.enable(self.root, HOME, "a1"))
        result_of(self.world.stack.accounts.login("Alice", "password", HOME))
        self.assertRaises(Missing, self.world.do, self.people.disable(self.root, HOME, "nobody"))
        expected = [("admin.disable", "root", "a1"), ("admin.enable", "root", "a1")]
        self.assertEqual(self.world.actions()[1:], expected)

    def test_decision_holds_although_the_store_is_busy_afterwards(self) -> None:
        """What is decided ends sessions at once; the rest is read again as soon as the store answers."""
        client = self.world.world.join(self.tokens["a1"])
        token, _ = make_device(
            self.world.stack.store.devices, ("read:/**",), "a1", "", START_S, None, self.world.stack.random_hex
        )
        self.world.do(self.people.look())

        def held() -> None:
            raise StoreBusy("users.db")

        busy = self.patch(self.world.stack.store.administration, "decided", held)
        self.world.do(self.people.disable(self.root, HOME, "a1"))
        self.assertIsNotNone(client.outbox.closed)
        self.assertEqual(self.world.live_tokens("a1"), 0)
        self.world.do(self.people.look())
        self.assertTrue(digest_is_valid(self.world, token))
        busy.restore()
        self.world.do(self.people.look())
        self.assertFalse(digest_is_valid(self.world, token))
        self.world.do(self.people.look())

    def test_device_tokens_of_a_disabled_person_hold_again_later(self) -> None:
        """They are the operator's: they let nobody in meanwhile, and are not revoked."""
        token, _ = make_device(
            self.world.stack.store.devices, ("read:/**",), "a1", "", START_S, None, self.world.stack.random_hex
        )
        self.world.do(self.world.devices.reload())
        client = self.world.world.join(token)
        self.world.do(self.people.disable(self.root, HOME, "a1"))
        self.assertIsNotNone(client.outbox.closed)
        self.assertFalse(digest_is_valid(self.world, token))
        self.world.do(self.people.enable(self.root, HOME, "a1"))
        self.assertTrue(digest_is_valid(self.world, token))
        self.world.do(self.people.delete(self.root, HOME, "a1", erases_messages=False))
        self.assertFalse(digest_is_valid(self.world, token))

    def test_nobody_shuts_themselves_out(self) -> None:
        """Another administrator can; the admin token can, too."""
        for change in (self.people.disable, partial(self.people.delete, erases_messages=True)):
            self.assertRaises(BadInput, self.world.do, change(self.root, HOME, "root"))

    def test_user_is_renamed_everywhere(self) -> None:
        """In the tokens that are valid, too; the new name obeys the rules for names."""
        self.world.do(self.people.rename(self.root, HOME, "a1", " Carol "))
        self.assertEqual(self.world.stack.accounts.me(self.tokens["a1"]).username, "Carol")
        result_of(self.world.stack.accounts.login("Carol", "password", HOME))
        self.assertRaises(BadInput, self.world.do, self.people.rename(self.root, HOME, "a1", "x"))
        self.assertRaises(Taken, self.world.do, self.people.rename(self.root, HOME, "a1", "root"))
        self.assertRaises(Missing, self.world.do, self.people.rename(self.root, HOME, "g1", "Carla"))

    def test_deleted_person_leaves_nothing_of_their_own(self) -> None:
        """What others wrote about them stays, and so do rooms, but what was sent to them goes."""
        alice, gina = (self.world.world.join(self.tokens[each]) for each in ("a1", "g1"))
        mine = ("/chat/user/a1/profile", "/chat/room/r/members/a1", "/chat/user/a1/dms/d")
        for address in (*mine, "/chat/room/r/meta", "/light"):
            alice.send(Set(address, value(1)))
        for address in ("/chat/requests/a1/g1", "/chat/room/r/bans/a1", "/chat/user/a12/profile"):
            gina.send(Set(address, value(1)))
        self.files.sizes["a1"] = [1]
        deleted = self.world.do(self.people.delete(self.root, HOME, "a1", erases_messages=True))
        self.assertEqual(deleted, Deleted(params=4, files=1, messages=None))
        left = {param.address for param in self.world.relay.params.all()}
        self.assertEqual(left, {"/chat/room/r/meta", "/light", "/chat/room/r/bans/a1", "/chat/user/a12/profile"})
        self.assertIsNotNone(alice.outbox.closed)
        self.assertEqual(self.files.sizes, {})
        self.assertRaises(Taken, self.world.register, "Anna", "a1")
        self.world.register("Alice", "a2")

    def test_one_sign_in_is_ended(self) -> None:
        """The others stay."""
        result_of(self.world.stack.accounts.login("Alice", "password", HOME, "phone"))
        _, devices = self.world.do(self.people.one("a1"))
        phone = next(each for each in devices if each.device == "phone")
        self.world.do(self.people.end_sign_in(self.root, HOME, "a1", phone.sign_in[:8].hex()))
        self.assertEqual(self.world.live_tokens("a1"), 1)
        again = self.people.end_sign_in(self.root, HOME, "a1", phone.sign_in[:8].hex())
        self.assertRaises(Missing, self.world.do, again)

    def test_registration_is_chosen_and_given_back(self) -> None:
        """To the option that the relay was started with."""
        self.world.do(self.people.choose_registration(self.root, HOME, "closed", False))
        self.assertRaises(Forbidden, self.world.register, "Bob", "b1")
        self.assertRaises(Forbidden, self.world.guest, "Hugo", "h1")
        self.world.do(self.people.choose_registration(self.root, HOME, None, None))
        self.world.register("Bob", "b1")
        self.assertEqual(self.world.console.source, "option")

    def test_invites_are_made_and_revoked(self) -> None:
        """Each once."""
        secret, invite = self.world.do(self.people.make_invite(self.root, HOME, 2, 60))
        self.assertEqual(self.world.do(self.people.invites()), [invite])
        self.world.do(self.people.choose_registration(self.root, HOME, "invite", None))
        result_of(self.world.stack.accounts.register("Bob", "password", "b1", None, HOME, secret))
        self.world.do(self.people.revoke_invite(self.root, HOME, invite.id))
        self.assertRaises(Missing, self.world.do, self.people.revoke_invite(self.root, HOME, invite.id))
        _, endless = self.world.do(self.people.make_invite(self.root, HOME, 1, None))
        self.assertIsNone(endless.expires_s)

    def test_every_change_is_in_the_audit_log(self) -> None:
        """One entry each, with who did it; what is refused changes nothing and is not there."""
        before = len(self.world.actions())
        people: Any = self.people
        changes = (
            ("admin.rename", "a1", people.rename, "a1", "Carol"),
            ("admin.reset_password", "a1", people.reset_password, "a1"),
            ("admin.disable", "a1", people.disable, "a1"),
            ("admin.enable", "a1", people.enable, "a1"),
            ("admin.registration", "", people.choose_registration, "open", True),
            ("admin.delete", "a1", partial(people.delete, erases_messages=True), "a1"),
        )
        for action, target, change, *args in changes:
            with self.subTest(action=action):
                self.world.do(change(self.root, HOME, *args))
                self.assertEqual(self.world.actions()[before:], [(action, "root", target)])
                before += 1


class DeletionTests(SynchronousTestCase):
    """What somebody who is deleted has said: Alice (a1) and Bob (b1) in the room r1, whose messages are kept."""

    def setUp(self) -> None:
        """Both have said something."""
        self.world = ConsoleWorld("chat")
        self.addCleanup(self.world.close)
        self.people = self.world.people
        self.root = self.world.root
        for name, user_id in (("Alice", "a1"), ("Bob", "b1")):
            client = self.world.world.join(self.world.register(name, user_id))
            if user_id == "a1":
                client.send(Set("/chat/room/r1/meta", value({"name": "Room"})))
            client.send(Set(f"/chat/room/r1/presence/{user_id}", value({"name": name})))
            for number in range(2):
                said = {"msgId": f"{user_id}-{number}", "text": f"said by {name}"}
                client.send(Publish("/chat/room/r1/messages", value=value(said)))
        self.world.do(self.people.look())

    @property
    def said(self) -> list[str]:
        """Whose messages are kept, in order."""
        replays = self.world.relay.replays
        assert replays is not None
        memory = replays.reader
        assert isinstance(memory, MemoryHistory)
        return [change.param.subject for _, change in memory._entries.values()]

    def entries(self) -> list[AuditEntry]:
        """Returns what the audit log has of deletions."""
        rows = (row.entry for row in self.world.stack.store.audit.after(0, 1_000))
        return [each for each in rows if each.action in ("admin.delete", "person.deleted")]

    def delete_elsewhere(self, user_id: str, *, erases_messages: bool) -> None:
        """Another process deletes somebody."""
        entry = AuditEntry(START_S, "admin.delete", target=user_id)
        self.world.stack.store.administration.delete(user_id, entry, erases_messages=erases_messages)

    def test_messages_are_kept_or_erased_as_it_is_asked(self) -> None:
        """Those of the others stay; the audit log has the choice, and what went."""
        self.assertEqual(self.said, ["a1", "a1", "b1", "b1"])
        deleted = self.world.do(self.people.delete(self.root, HOME, "a1", erases_messages=False))
        self.assertEqual(deleted, Deleted(params=1, files=0, messages=None))
        self.assertEqual(self.said, ["a1", "a1", "b1", "b1"])
        deleted = self.world.do(self.people.delete(self.root, HOME, "b1", erases_messages=True))
        self.assertEqual(deleted, Deleted(params=1, files=0, messages=2))
        self.assertEqual(self.said, ["a1", "a1"])
        self.assertEqual(
            [(each.action, each.actor, each.target, dict(each.detail)) for each in self.entries()],
            [
                ("admin.delete", "root", "a1", {"messages": "keep"}),
                ("person.deleted", "", "a1", {"params": 1, "files": 0, "messages": None}),
                ("admin.delete", "root", "b1", {"messages": "erase"}),
                ("person.deleted", "", "b1", {"params": 1, "files": 0, "messages": 2}),
            ],
        )

    def test_what_another_process_has_deleted_goes(self) -> None:
        """Sessions, tokens, params and messages; also what was to be done when the relay stopped."""
        self.delete_elsewhere("a1", erases_messages=True)
        self.assertEqual(self.world.live_tokens("a1"), 1)

        async def changed() -> bool:
            return True

        self.patch(self.world.devices, "look", changed)
        self.world.do(self.people.look())
        self.world.world.turn()
        self.assertEqual((self.world.live_tokens("a1"), self.said), (0, ["b1", "b1"]))
        self.assertEqual(self.world.stack.store.administration.deletions(), [])
        self.assertEqual(
            {param.address for param in self.world.relay.params.all()} & {"/chat/room/r1/presence/a1"}, set()
        )

    def test_what_cannot_be_done_now_is_done_later(self) -> None:
        """Whoever asked is told so; history was busy, then the store, and nothing is asked in between."""
        replays = self.world.relay.replays
        assert replays is not None
        asked: list[str] = []

        def fail(subject: str, done: Callable[[int | None], None]) -> None:
            asked.append(subject)
            done(None)

        busy = self.patch(replays.reader, "erase_of", fail)
        self.assertIsNone(self.world.do(self.people.delete(self.root, HOME, "a1", erases_messages=True)))
        self.world.do(self.people.look())
        self.assertEqual((asked, self.said), (["a1"], ["a1", "a1", "b1", "b1"]))
        busy.restore()

        def held() -> None:
            raise StoreBusy("users.db")

        store = self.patch(self.world.stack.store.administration, "deletions", held)
        for _ in range(2):
            self.world.stack.clock.advance(AGAIN_S)
            self.world.do(self.people.look())
            self.world.world.turn()
            store.restore()
        self.assertEqual((self.said, len(self.entries())), (["b1", "b1"], 2))
        self.world.stack.clock.advance(10 * AGAIN_S)
        self.patch(self.world.stack.store.administration, "deletions", held)
        self.world.do(self.people.look())

    def test_history_of_each_relay_loses_what_was_said_whichever_deletes(self) -> None:
        """Also where all else is done before this one looks; the rest is for the relay that decides."""
        acts = False
        self.people._acts = lambda: acts
        store = self.world.stack.store.administration
        self.world.do(self.people.look())
        self.delete_elsewhere("a1", erases_messages=True)
        store.deleted("a1", AuditEntry(START_S, "person.deleted", target="a1"))
        self.delete_elsewhere("b1", erases_messages=False)
        self.world.do(self.people.take_note())
        self.world.do(self.people.look())
        self.assertEqual(self.said, ["a1", "a1", "b1", "b1"])
        self.world.stack.clock.advance(SOON_S)
        self.world.do(self.people.look())
        self.world.world.turn()
        self.assertEqual((self.said, store.erasures(), len(self.entries())), (["b1", "b1"], [], 3))
        self.assertEqual([each.subject for each in store.deletions()], ["b1"])
        acts = True
        self.world.do(self.people.look())
        self.world.stack.clock.advance(SOON_S)
        self.world.do(self.people.look())
        self.world.world.turn()
        self.assertEqual((store.deletions(), len(self.entries())), ([], 4))

    def test_erasure_that_cannot_be_done_now_is_done_later(self) -> None:
        """At a relay that does not decide: history was busy, then the store."""
        self.people._acts = lambda: False
        store, replays = self.world.stack.store.administration, self.world.relay.replays
        assert replays is not None
        self.delete_elsewhere("a1", erases_messages=True)
        busy = self.patch(replays.reader, "erase_of", lambda _subject, done: done(None))

        def held() -> None:
            raise StoreBusy("users.db")

        self.world.do(self.people.take_note())
        for step in range(3):
            self.world.stack.clock.advance(AGAIN_S)
            self.world.do(self.people.look())
            self.world.world.turn()
            self.assertEqual(self.said, ["a1", "a1", "b1", "b1"] if step < 2 else ["b1", "b1"])
            busy.restore()
            if step == 0:
                held_store = self.patch(store, "erasures", held)
            else:
                held_store.restore()

    def test_two_deletions_at_once_do_each_thing_once(self) -> None:
        """The second one waits for the first."""
        work = [
            Deferred.fromCoroutine(self.people.delete(self.root, HOME, user_id, erases_messages=True))
            for user_id in ("a1", "b1")
        ]
        self.world.world.turn()
        self.world.world.turn()
        results = [result_of(each) for each in work]
        self.assertEqual((self.said, len(self.entries())), ([], 4))
        self.assertIn(Deleted(params=1, files=0, messages=2), results)
