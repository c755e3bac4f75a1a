"""Tests of clasp_relay.access.rooms: the chat's rooms and reports, under its packaged policy."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import rooms as module
from clasp_relay.access.refusals import BadInput, Missing
from clasp_relay.access.rooms import Reports, Rooms
from clasp_relay.core.records import Param
from clasp_relay.errors import RequestError
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.wire.messages import Error, Publish, Replay, Set, Snapshot
from clasp_relay.wire.values import decode_value
from tests.access.console_world import ADMIN_TOKEN, ConsoleWorld
from tests.access.stack import HOME
from tests.core.world import START_US, Client, heard, value

ROOM = "/chat/room/r1"


class RoomsCase(SynchronousTestCase):
    """The room r1 of Alice (a1), with Bob (b1) inside."""

    def setUp(self) -> None:
        """Makes it."""
        self.world = ConsoleWorld("chat")
        self.addCleanup(self.world.close)
        relay = self.world.relay
        sessions = ApiSessions(relay)
        self.addCleanup(sessions.close)
        parts = (relay.params, self.world.search)

        def write(who: Any, address: str, message: Any) -> Any:
            return sessions.ask(who.token, address, message)

        now_ms = lambda: START_US // 1000  # noqa: E731
        self.rooms = Rooms(*parts, relay.replays, self.world.audit, write, now_ms)
        self.reports = Reports(*parts, self.world.audit, write, now_ms, relay.replays)
        self.root = self.world.root
        self.alice, self.bob = self.join("Alice", "a1"), self.join("Bob", "b1")
        self.put(self.alice, f"{ROOM}/meta", {"name": "Room", "creatorId": "a1", "passwordHash": "h", "x": b"1"})
        self.put(self.alice, f"{ROOM}/presence/a1", {"name": "Alice"})
        self.put(self.alice, f"{ROOM}/members/a1", {"at": 1})
        self.put(self.bob, f"{ROOM}/crypto/proof/b1", {"hash": "h"})
        self.put(self.bob, f"{ROOM}/presence/b1", {"name": "Bob"})
        self.bob.send(Publish(f"{ROOM}/messages", value=value({"msgId": "m1", "text": "hi"})))
        self.put(self.alice, "/chat/registry/rooms/r1", {"name": "Room"})
        self.assertEqual(heard(self.alice.hear()), [])

    def join(self, name: str, user_id: str) -> Client:
        """Registers and connects somebody."""
        return self.world.world.join(self.world.register(name, user_id))

    def put(self, client: Client, address: str, obj: Any) -> None:
        """Sets a value, which must be accepted."""
        said = client.ask(Set(address, value(obj)), 1)
        self.assertFalse([each for each in said if isinstance(each, Error)], said)

    def addresses(self) -> set[str]:
        """Returns what is set."""
        return {param.address for param in self.world.relay.params.all()}

    def page(self, search: str = "", after: str = "", limit: int = 10) -> tuple[list[str], str | None]:
        """Returns the ids of a page of rooms, and where the next one begins."""
        rooms, following = self.world.do(self.rooms.page(search, after, limit))
        return [each["room_id"] for each in rooms], following


class RoomsTests(RoomsCase):
    """What administrators see of rooms and do with them."""

    def test_rooms_are_listed_in_pages(self) -> None:
        """In the order of their ids, by id or name; one without a meta, too."""
        self.put(self.bob, "/chat/room/a/presence/b1", {"name": "Bob"})
        self.put(self.bob, "/chat/room/z/meta", {"name": "Zoo"})
        self.assertEqual(self.page(), (["a", "r1", "z"], None))
        self.assertEqual(self.page(limit=2), (["a", "r1"], "r1"))
        self.assertEqual(self.page(after="r1"), (["z"], None))
        self.assertEqual(self.page("ROO"), (["r1"], None))
        self.assertEqual(self.page("nothing"), ([], None))

    def test_room_is_described(self) -> None:
        """Its password's hash is told to nobody."""
        (listed,), _ = self.world.do(self.rooms.page("", "", 1))
        room = self.world.do(self.rooms.one("r1"))
        size_bytes = sum(
            len(param.address) + len(param.value)
            for param in self.world.relay.params.all()
            if param.address.startswith(f"{ROOM}/")
        )
        expected = {
            "room_id": "r1",
            "name": "Room",
            "creator_id": "a1",
            "is_public": True,
            "is_dm": False,
            "has_password": True,
            "is_encrypted": False,
            "members": 1,
            "present": 2,
            "banned": 0,
            "params": 5,
            "bytes": size_bytes,
            "history": None,
        }
        self.assertEqual(listed, expected)
        history = room.pop("history")
        self.assertEqual(history["entries"], 1)
        self.assertGreater(history["bytes"], 0)
        self.assertEqual(
            room.pop("people"),
            [
                {"user_id": "a1", "name": "Alice", "role": "creator", "member": True, "present": True},
                {"user_id": "b1", "name": "Bob", "role": "member", "member": False, "present": True},
            ],
        )
        meta = {"name": "Room", "creatorId": "a1", "x": {"$bytes": "MQ=="}}
        self.assertEqual((room.pop("meta"), room.pop("bans")), (meta, []))
        del expected["history"]
        self.assertEqual(room, expected)

    def test_room_that_is_made_large_is_shown_in_part(self) -> None:
        """Bans and names with as much as the relay takes (without a policy's bounds) make no long turn of the look."""
        anybody = self.world.world.join(ADMIN_TOKEN)
        for number in range(40):
            self.put(anybody, f"{ROOM}/bans/x{number}", {"reason": "x" * 10_000})
        self.put(anybody, f"{ROOM}/presence/b1", {"name": "Bob" * 10_000})
        self.put(anybody, f"{ROOM}/meta", {"name": "Room" * 10_000, "creatorId": "a1", "passwordHash": "h"})
        room = self.world.do(self.rooms.one("r1"))
        self.assertEqual((room["banned"], len(room["bans"])), (40, module.MAX_PAGE_BYTES // 10_000))
        names = [room["name"], *(each["name"] for each in room["people"])]
        self.assertEqual([len(each) for each in names], [module.MAX_NAME, 5, module.MAX_NAME])
        self.world.do(self.rooms.delete(self.root, HOME, "r1"))
        rows = self.world.stack.store.audit.after(0, 1_000)
        self.assertEqual(rows[-1].entry.detail, {"name": ("Room" * 10_000)[: module.MAX_NAME], "params": 45})

    def test_deleted_room_leaves_nothing(self) -> None:
        """Neither params, nor history, nor its place in the registry; others stay."""
        self.put(self.bob, "/chat/room/r12/meta", {"name": "Other"})
        self.world.do(self.rooms.delete(self.root, HOME, "r1"))
        self.assertEqual(self.addresses(), {"/chat/room/r12/meta"})
        admin = self.world.world.join(self.root.token)
        admin.send(Replay(f"{ROOM}/messages", 0, None, 10, 31))
        self.world.world.turn()
        texts = [told.get("text") for _, told in heard(admin.hear()) if isinstance(told, dict)]
        self.assertNotIn("hi", texts)
        self.assertRaises(Missing, self.world.do, self.rooms.one("r1"))
        self.assertEqual(self.world.actions()[-1], ("admin.room.delete", "root", "r1"))

    def test_room_without_a_meta_is_deleted_with_its_history(self) -> None:
        """It is the end of the meta that erases."""
        self.put(self.bob, "/chat/room/bare/presence/b1", {"name": "Bob"})
        self.bob.send(Publish("/chat/room/bare/messages", value=value({"msgId": "m1", "text": "hi"})))
        self.assertEqual(self.world.do(self.rooms.one("bare"))["history"]["entries"], 1)
        self.world.do(self.rooms.delete(self.root, HOME, "bare"))
        self.put(self.bob, "/chat/room/bare/presence/b1", {"name": "Bob"})
        self.assertEqual(self.world.do(self.rooms.one("bare"))["history"]["entries"], 0)

    def test_banned_person_is_out_at_once(self) -> None:
        """And comes back when the ban is lifted."""
        self.world.do(self.rooms.ban(self.root, HOME, "r1", "b1", "spam"))
        self.assertNotIn(f"{ROOM}/presence/b1", self.addresses())
        ban = self.world.relay.params.get(f"{ROOM}/bans/b1")
        assert ban is not None
        expected = {"bannedBy": "root", "timestamp": START_US // 1000, "name": "Bob", "reason": "spam"}
        self.assertEqual(decode_value(ban.value), expected)
        self.bob.hear()
        refused = self.bob.ask(Set(f"{ROOM}/presence/b1", value({"name": "Bob"})), 1)
        self.assertTrue([each for each in refused if isinstance(each, Error)])
        room = self.world.do(self.rooms.one("r1"))
        self.assertEqual((room["banned"], room["bans"]), (1, [{"user_id": "b1", "value": expected}]))
        self.world.do(self.rooms.unban(self.root, HOME, "r1", "b1"))
        self.put(self.bob, f"{ROOM}/presence/b1", {"name": "Bob"})
        self.assertRaises(Missing, self.world.do, self.rooms.unban(self.root, HOME, "r1", "b1"))

    def test_what_names_nothing_is_refused(self) -> None:
        """Patterns and other addresses are no room ids, and no user ids."""
        for room_id in ("", "*", "**", "r*", "r1/meta", "../room", "nothing"):
            with self.subTest(room_id=room_id):
                self.assertRaises(Missing, self.world.do, self.rooms.one(room_id))
                self.assertRaises(Missing, self.world.do, self.rooms.delete(self.root, HOME, room_id))
        for user_id in ("", "*", "a/b", "x" * 5_000):
            with self.subTest(user_id=user_id[:9]):
                ban = self.rooms.ban(self.root, HOME, "r1", user_id, None)
                self.assertRaises(BadInput, self.world.do, ban)
        long = self.rooms.ban(self.root, HOME, "r1", "b1", "x" * 501)
        self.assertRaises(BadInput, self.world.do, long)
        self.assertRaises(RequestError, self.world.do, self.rooms._send(self.root, HOME, Set("/a/*", value(1))))


class ReportsTests(RoomsCase):
    """What members have reported."""

    def report(self, report_id: str, client: Client, **fields: Any) -> None:
        """Reports something, a second after what was reported before."""
        self.world.world.clock.clock.advance(1)
        told = {"roomId": "r1", "message": {"text": "spam"}, "reason": "rude", **fields}
        self.put(client, f"/chat/reports/{report_id}", told)

    def ids(self, state: str = "open", limit: int = 10) -> list[str]:
        """Returns the ids of all pages."""
        found: list[str] = []
        after: Any = None
        while True:
            page, after = self.world.do(self.reports.page(state, after, limit))
            found += [each["id"] for each in page]
            if after is None:
                return found

    def test_report_is_read_by_administrators_only(self) -> None:
        """With who made it, whatever it says itself, and as open, whatever it says."""
        forged = {"userId": "a1", "reportedBy": "a1", "reportedAt": 1, "resolved": {"at": 1}}
        self.report("n1", self.bob, **forged, **{"from": "Bob"})
        (found,), following = self.world.do(self.reports.page("open", None, 5))
        expected = {
            "id": "n1",
            "room_id": "r1",
            "message": {"text": "spam"},
            "reason": "rude",
            "reporter": "b1",
            "reporter_name": "Bob",
            "created_at": START_US // 1_000_000 + 1,
            "resolved": None,
        }
        self.assertEqual((found, following), (expected, None))
        again = self.bob.ask(Set("/chat/reports/n1", value({"roomId": "r1"})), 1)
        self.assertTrue([each for each in again if isinstance(each, Error)])
        self.assertFalse([each for each in self.bob.hear() if isinstance(each, Snapshot)])

    def test_report_stands_beside_what_history_has(self) -> None:
        """Which tells a forged one; where nothing is kept, that is said."""
        self.bob.send(Publish(f"{ROOM}/messages", value=value({"msgId": "m2", "text": "bye", "userId": "b1"})))
        said = {"msgId": "m1", "userId": "b1", "text": "hi"}
        at_s = START_US // 1_000_000
        kept = [{"author": "b1", "at_s": at_s, "text": "hi", "has_attachment": False}]
        nothing: dict[str, Any] = {"messages": [], "same_author": None, "same_text": None}
        cases: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
            ({"message": said}, {"state": "kept", "messages": kept, "same_author": True, "same_text": True}),
            (
                {"message": said | {"userId": "a1", "text": "forged"}},
                {"state": "kept", "messages": kept, "same_author": False, "same_text": False},
            ),
            ({"message": said | {"msgId": "m9"}}, {"state": "missing", **nothing}),
            ({"message": {"text": "hi"}}, {"state": "missing", **nothing}),
            ({"message": "hi"}, {"state": "missing", **nothing}),
        )
        for number, (fields, expected) in enumerate(cases):
            with self.subTest(fields=fields):
                self.report(f"k{number}", self.alice, **fields)
                self.assertEqual(self.world.do(self.reports.kept(f"k{number}")), expected)
        self.patch(self.reports, "_replays", None)
        self.assertEqual(self.world.do(self.reports.kept("k0")), {"state": "off", **nothing})
        self.assertRaises(Missing, self.world.do, self.reports.kept("n9"))

    def test_report_about_a_room_that_cannot_be_one_has_nothing_beside_it(self) -> None:
        """Only an administrator can write such a report."""
        for room_id in ("r*", "r1/x", 7):
            with self.subTest(room_id=room_id):
                param = Param("/chat/reports/odd", value({"roomId": room_id, "message": {"msgId": "m1"}}), 1, "", 0)
                self.patch(self.reports, "_find", lambda _, param=param: param)
                self.assertEqual(self.world.do(self.reports.kept("odd"))["messages"], [])

    def test_reports_are_resolved_and_deleted(self) -> None:
        """Who made them, and when, stays; they can be resolved again."""
        for number, client in enumerate((self.bob, self.alice, self.bob)):
            self.report(f"n{number}", client)
        self.assertEqual(self.ids(limit=1), ["n2", "n1", "n0"])
        for note in ("done", None):
            self.world.do(self.reports.resolve(self.root, HOME, "n1", note))
        self.assertEqual(
            (self.ids(), self.ids("resolved"), self.ids("all")), (["n2", "n0"], ["n1"], ["n2", "n1", "n0"])
        )
        self.patch(module, "MAX_PAGE_BYTES", 3)
        self.assertEqual(self.ids("all"), ["n2", "n1", "n0"])
        (found,), _ = self.world.do(self.reports.page("resolved", None, 5))
        self.assertEqual((found["reporter"], found["created_at"]), ("a1", START_US // 1_000_000 + 2))
        self.assertEqual(found["resolved"], {"at": START_US // 1_000_000, "by": "root", "note": None})
        self.assertEqual(self.world.do(self.reports.count_open()), 2)
        self.world.do(self.reports.delete(self.root, HOME, "n0"))
        self.assertEqual(self.ids("all"), ["n2", "n1"])
        for report_id in ("n0", "x/y", ""):
            self.assertRaises(Missing, self.world.do, self.reports.resolve(self.root, HOME, report_id, None))
            self.assertRaises(Missing, self.world.do, self.reports.delete(self.root, HOME, report_id))
        self.assertRaises(BadInput, self.world.do, self.reports.resolve(self.root, HOME, "n2", "x" * 501))
        actions = [action for action, _, _ in self.world.actions()[1:]]
        self.assertEqual(actions, ["admin.report.resolve"] * 2 + ["admin.report.delete"])
