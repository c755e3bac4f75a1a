"""Tests of clasp_relay.http.admin_rooms: the chat over HTTP."""

from __future__ import annotations

from clasp_relay.wire.messages import Set
from tests.core.world import value
from tests.http.admin_site import AdminCase


class RoomCallsTests(AdminCase):
    """A room of Alice's."""

    def setUp(self) -> None:
        """Makes it."""
        super().setUp()
        self.alice = self.world.world.join(self.world.register("Alice", "a1"))
        self.alice.send(Set("/chat/room/r1/meta", value({"name": "Room", "creatorId": "a1"})))
        self.alice.send(Set("/chat/room/r2/meta", value({"name": "Other", "creatorId": "a1"})))

    def test_rooms_are_listed_changed_and_deleted(self) -> None:
        """As their parts do it."""
        first = self.get("rooms?limit=1")
        self.assertEqual([each["room_id"] for each in first["items"]], ["r1"])
        self.assertEqual([each["room_id"] for each in self.get(f"rooms?after={first['next']}")["items"]], ["r2"])
        self.assertEqual([each["room_id"] for each in self.get("rooms?search=other")["items"]], ["r2"])
        self.call("POST", "rooms/r1/bans", {"user_id": "b1", "reason": "spam"})
        room = self.get("rooms/r1")
        self.assertEqual((room["name"], room["bans"][0]["user_id"]), ("Room", "b1"))
        self.call("DELETE", "rooms/r1/bans/b1")
        self.refused(404, "DELETE", "rooms/r1/bans/b1")
        self.refused(400, "POST", "rooms/r1/bans", {"user_id": "*"})
        self.call("DELETE", "rooms/r1")
        self.refused(404, "GET", "rooms/r1")
        self.refused(404, "DELETE", "rooms/r1")

    def test_reports_are_listed_and_resolved(self) -> None:
        """Open ones where the request does not say."""
        self.alice.send(Set("/chat/room/r1/presence/a1", value({"name": "Alice"})))
        for number in range(2):
            report = {"roomId": "r1", "message": {"text": "spam"}}
            self.alice.send(Set(f"/chat/reports/n{number}", value(report)))
        first = self.get("reports?limit=1")
        second = self.get(f"reports?limit=1&after={first['next']}")
        self.assertEqual([each["id"] for each in first["items"] + second["items"]], ["n1", "n0"])
        self.assertEqual(self.get("reports/n0/kept")["state"], "missing")
        self.refused(404, "GET", "reports/n9/kept")
        self.call("POST", "reports/n0/resolve", {"note": "done"})
        self.assertEqual([each["resolved"]["note"] for each in self.get("reports?state=resolved")["items"]], ["done"])
        self.call("POST", "reports/n1/resolve")
        self.call("DELETE", "reports/n1")
        self.refused(404, "DELETE", "reports/n1")
        self.assertEqual(len(self.get("reports?state=all")["items"]), 1)
