"""Who is told of what."""

from __future__ import annotations

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.names import name_keys
from clasp_relay.push import chat
from clasp_relay.push.chat import EVERY_S, MAX_MENTIONS, ChatNotices
from clasp_relay.push.destinations import Places
from clasp_relay.push.sender import Notice
from clasp_relay.push.subscriptions import Subscriptions
from clasp_relay.storage.push_subscriptions import Subscription
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Publish, Set
from clasp_relay.wire.values import PyValue, decode_value
from tests.access.stack import InlineWorkers
from tests.access.test_permissions import AuthWorld
from tests.core.world import Client, value
from tests.push.push_service import AUTH, Browser, base64url
from tests.push.test_subscriptions import result_of, signed_in
from tests.rules.test_watcher import SEES_ALL

POLICY = {
    "scopes": ["read:/**", "write:/**"],
    "write_rules": [{"path": "/chat/room/{room}/messages", "stamp": {"field": "userId", "publish": True}}],
}
DM, ROOM = "/chat/room/dm-1", "/chat/room/r1"


class NoticeTests(SynchronousTestCase):
    """The owner writes; the reader and the other one have browsers."""

    def setUp(self) -> None:
        """A direct-message room of two, and a room of three."""
        self.world = AuthWorld(POLICY)
        self.told: list[tuple[str, str, str]] = []
        self.barred: set[tuple[str, str]] = set()
        users = SqliteUsers(None, name_keys)
        self.addCleanup(users.close)
        self.known = Subscriptions(Places(lambda *_: succeed(["8.8.8.8"])), lambda: 0)
        self.known.open(users.push, InlineWorkers())
        self.owner, self.admin = self.world.join("owner"), self.world.join("admin")
        self.put(f"{DM}/meta", {"dmUsers": {"owner": "O", "reader": "R"}, "isPublic": False})
        self.put(f"{ROOM}/meta", {"name": "Room"})
        for user in ("owner", "reader", "other"):
            self.put(f"{ROOM}/members/{user}", {"name": user})
        for user in ("owner", "reader"):
            self.put(f"{DM}/members/{user}", {"name": user})
        for user in ("reader", "other"):
            self.subscribe(user, user)
        self.notices = self.begin()

    def begin(self) -> ChatNotices:
        """Begins to watch."""
        may_enter = lambda room, person: (room, person) not in self.barred  # noqa: E731
        notices = ChatNotices(self.world.relay, SEES_ALL, self.known, may_enter, self.send)
        notices.open()
        return notices

    def subscribe(self, user: str, name: str) -> None:
        """Adds a browser."""
        key = base64url(Browser().public)
        result_of(self.known.add(signed_in(user), f"https://push.example/{name}", key, base64url(AUTH), ""))

    def send(self, subscription: Subscription, notice: Notice) -> None:
        """Notes what is sent."""
        self.told.append((subscription.endpoint.rpartition("/")[2], notice.room, notice.kind))

    def put(self, address: str, said: PyValue) -> None:
        """Sets something, whoever may."""
        self.admin.send(Set(address, value(said)))

    def say(self, room: str, said: PyValue, client: Client | None = None) -> list[tuple[str, str, str]]:
        """Says something, and returns who is told."""
        self.told.clear()
        (client or self.owner).ask(Publish(f"{room}/messages", Signal.EVENT, value=value(said)))
        return sorted(self.told)

    def later(self) -> None:
        """Lets so much time pass that people are told again."""
        self.world.clock.clock.advance(EVERY_S)

    def test_direct_message_is_told_to_the_other_one(self) -> None:
        """At each browser; never to its sender."""
        self.subscribe("reader", "phone")
        self.subscribe("owner", "mine")
        told = [("phone", "dm-1", "dm"), ("reader", "dm-1", "dm")]
        self.assertEqual(self.say(DM, {"text": "hi", "kind": "message"}), told)
        self.later()
        self.assertEqual(self.say(DM, {"ciphertext": "x"}), told)

    def test_person_is_told_of_a_room_once_in_a_while(self) -> None:
        """Of another room at once."""
        said: PyValue = {"text": "hi", "mentions": ["reader"]}
        self.assertEqual(len(self.say(DM, said)), 1)
        self.assertEqual(self.say(DM, said), [])
        self.assertEqual(self.say(ROOM, said), [("reader", "r1", "mention")])
        self.world.clock.clock.advance(EVERY_S - 1)
        self.assertEqual(self.say(DM, said), [])
        self.world.clock.clock.advance(1)
        self.assertEqual(len(self.say(DM, said)), 1)

    def test_people_who_are_mentioned_are_told(self) -> None:
        """They alone, each once, and a bounded number of them; what is no user is nobody."""
        self.assertEqual(self.say(ROOM, {"text": "hi"}), [])
        said: PyValue = {"mentions": ["other", "other", 1, None, "*", "owner", "a/b", "stranger"]}
        self.assertEqual(self.say(ROOM, said), [("other", "r1", "mention")])
        many: list[PyValue] = [f"u{number}" for number in range(MAX_MENTIONS)]
        self.assertEqual(self.say(ROOM, {"mentions": [*many, "reader"]}), [])
        for odd in ("reader", {"reader": 1}, 7):
            with self.subTest(mentions=odd):
                self.assertEqual(self.say(ROOM, {"mentions": odd}), [])

    def test_edits_deletes_and_what_is_no_message_are_not_told(self) -> None:
        """Nor what is too long to be looked at."""
        for said in (
            {"kind": "edit", "targetId": "m"},
            {"type": "delete", "targetId": "m"},
            {"kind": "delete"},
            {"text": "x" * 40_000},
        ):
            with self.subTest(said=list(said)):
                self.assertEqual(self.say(DM, said), [])
        self.told.clear()
        self.admin.send(Publish(f"{DM}/messages", Signal.EVENT, value=value("no map")))
        self.admin.send(Publish(f"{DM}/messages", Signal.EVENT))
        self.admin.send(Publish(f"{DM}/messages", Signal.EVENT, value=value({"text": "nobody's"})))
        self.assertEqual(self.told, [])

    def test_little_is_decoded_for_each_message(self) -> None:
        """However much a message holds, and the meta of its room, which another message paid for."""
        decoded: list[int] = []

        def decode(said: bytes) -> PyValue:
            decoded.append(len(said))
            return decode_value(said)

        self.patch(chat, "decode_value", decode)
        much: PyValue = [{"a": 1}] * 1_000
        self.put(f"{DM}/meta", {"dmUsers": ["owner", "reader"], "x": much})
        self.put(f"{ROOM}/meta", {"name": "Room", "x": [much, much]})
        self.assertEqual(self.say(DM, {"text": "hi", "x": much}), [("reader", "dm-1", "dm")])
        self.assertEqual(self.say(ROOM, {"mentions": ["other"], "x": much}), [("other", "r1", "mention")])
        self.assertEqual(self.say(ROOM, {"mentions": [*("x" * 60 for _ in range(100)), "reader"], "x": much}), [])
        self.assertLess(max(decoded), 200)

    def test_who_is_not_to_hear_of_it_is_not_told(self) -> None:
        """No member, banned, not allowed in, blocking the sender, or with a page that is open and visible."""
        said: PyValue = {"mentions": ["reader"]}
        self.barred.add(("r1", "reader"))
        self.assertEqual(self.say(ROOM, said), [])
        self.barred.clear()
        for address in (f"{ROOM}/bans/reader", "/chat/user/reader/blocked/owner", "/chat/user/reader/visible/s1"):
            with self.subTest(address=address):
                self.put(address, {"since": 1})
                self.assertEqual(self.say(ROOM, said), [])
                self.admin.send(Set(address, NULL))
                self.assertEqual(len(self.say(ROOM, said)), 1)
                self.later()
        self.admin.send(Set(f"{ROOM}/members/reader", NULL))
        self.assertEqual(self.say(ROOM, said), [])

    def test_who_has_muted_the_room_is_not_told(self) -> None:
        """Of messages, mentions and calls there, until it is heard again; of other rooms as before."""
        mention: PyValue = {"mentions": ["reader"]}
        self.put("/chat/user/reader/sync/r1", {"joined": True, "muted": True})
        self.put("/chat/user/reader/sync/dm-1", {"joined": True, "muted": True})
        self.assertEqual(self.say(ROOM, mention), [])
        self.assertEqual(self.say(DM, {"text": "hi"}), [])
        self.owner.send(Set(f"{ROOM}/video/presence/s1", value({"name": "O"})))
        self.assertEqual(self.told, [("other", "r1", "call")])
        self.put("/chat/user/reader/sync/r1", {"joined": True, "muted": False})
        self.assertEqual(self.say(ROOM, mention), [("reader", "r1", "mention")])
        for odd in (7, "true", {"muted": "yes"}, {"muted": ["x" * 5_000]}, NULL):
            with self.subTest(shared=odd):
                self.later()
                self.admin.send(Set("/chat/user/reader/sync/dm-1", odd if odd is NULL else value(odd)))
                self.assertEqual(self.say(DM, {"text": "hi"}), [("reader", "dm-1", "dm")])

    def test_who_does_not_want_to_be_disturbed_is_not_told(self) -> None:
        """Whatever the room; every other status is no reason not to tell."""
        for status, told in (("dnd", []), ("away", [("reader", "dm-1", "dm")])):
            with self.subTest(status=status):
                self.put("/chat/user/reader/profile", {"name": "R", "status": status})
                self.assertEqual(self.say(DM, {"text": "hi"}), told)

    def test_first_one_in_a_call_rings(self) -> None:
        """All members where it is a room, the other one where it is between two; those who follow ring nobody."""
        for room, told in ((ROOM, ["other", "reader"]), (DM, ["reader"])):
            with self.subTest(room=room):
                self.told.clear()
                self.owner.send(Set(f"{room}/video/presence/s1", value({"name": "O"})))
                expected = [(name, room.rpartition("/")[2], "call") for name in told]
                self.assertEqual(sorted(self.told), expected)
                self.later()
                self.admin.send(Set(f"{room}/video/presence/s2", value({"name": "A"})))
                self.owner.send(Set(f"{room}/video/presence/s1", value({"name": "O"})))
                self.assertEqual(sorted(self.told), expected)
                for place in ("s1", "s2"):
                    self.admin.send(Set(f"{room}/video/presence/{place}", NULL))
                self.told.clear()
                self.owner.send(Set(f"{room}/video/presence/s3", value({"name": "O"})))
                self.assertEqual(sorted(self.told), expected)
                self.later()

    def test_call_that_was_there_before_the_start_rings_nobody(self) -> None:
        """Nor does one in a room with very many members."""
        self.notices.close()
        self.owner.send(Set(f"{ROOM}/video/presence/s1", value({"name": "O"})))
        self.begin()
        self.admin.send(Set(f"{ROOM}/video/presence/s2", value({"name": "A"})))
        self.assertEqual(self.told, [])
        self.patch(chat, "MAX_CALLED", 2)
        for place in ("s1", "s2"):
            self.admin.send(Set(f"{ROOM}/video/presence/{place}", NULL))
        self.owner.send(Set(f"{ROOM}/video/presence/s1", value({"name": "O"})))
        self.assertEqual(self.told, [])

    def test_what_is_remembered_is_bounded(self) -> None:
        """Then somebody may be told once more."""
        self.patch(chat, "_MAX_TOLD", 1)
        self.say(ROOM, {"mentions": ["reader", "other"]})
        self.assertEqual(len(self.told), 2)
        self.assertEqual(self.say(ROOM, {"mentions": ["reader"]}), [("reader", "r1", "mention")])
