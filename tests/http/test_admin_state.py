"""Tests of clasp_relay.http.admin_state: what the relay does now, over HTTP."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter
from twisted.logger import globalLogPublisher

from clasp_relay.http import admin_state as module
from clasp_relay.logs import events
from clasp_relay.wire.messages import Set, Subscribe
from tests.core.world import value
from tests.http.admin_site import AdminCase, AdminSite


class StateCallsTests(AdminCase):
    """A relay with Alice connected."""

    def setUp(self) -> None:
        """Connects her."""
        super().setUp()
        self.alice = self.world.world.join(self.world.register("Alice", "a1"))

    def test_relay_is_described_in_numbers(self) -> None:
        """All at one moment."""
        self.alice.send(Set("/chat/user/a1/profile", value({"name": "Alice"})))
        self.alice.send(Set("/chat/room/r/presence/a1", value({"name": "Alice"})))
        self.alice.send(Set("/chat/reports/n1", value({"roomId": "r"})))
        told = self.get("overview")
        numbers = ("users", "disabled", "sessions", "params", "open_reports")
        self.assertEqual([told[name] for name in numbers], [2, 0, 1, 3, 1])
        self.assertEqual((told["name"], told["cluster"]), ("Test", {"relay": "one", "role": "follower"}))

    def test_metrics_are_told_as_json(self) -> None:
        """With labels; none where nothing counts them."""
        self.assertEqual(self.get("metrics")["metrics"], [])
        registry = CollectorRegistry()
        Counter("x", "An x.", ["kind"], registry=registry).labels("a").inc(3)
        self.api = AdminSite("chat", registry)
        self.addCleanup(self.api.close)
        (family,) = self.get("metrics")["metrics"]
        self.assertEqual((family["name"], family["type"], family["help"]), ("x", "counter", "An x."))
        self.assertEqual(family["samples"][0], {"name": "x_total", "labels": {"kind": "a"}, "value": 3})

    def test_log_is_read_on_from_a_line(self) -> None:
        """Each with its level and part."""
        globalLogPublisher.addObserver(self.api.ring)
        self.addCleanup(globalLogPublisher.removeObserver, self.api.ring)
        events.AUTH_OTHER.log(call="x", address="y", result="z")
        events.ORIGINS_UNLIMITED.log()
        first, second = self.get("log")["items"]
        self.assertEqual((first["seq"], first["level"], first["part"]), (1, "info", "auth"))
        self.assertEqual(self.get("log?after=1")["items"], [second])

    def test_sessions_are_listed_and_found(self) -> None:
        """By id, subject, name, address, client and door, in pages."""
        bob = self.world.world.join(self.world.register("Bob", "b1"))
        first = self.get("sessions?limit=1")
        self.patch(module, "LOOKED_AT_ONCE", 1)
        second = self.get(f"sessions?limit=1&after={first['next']}")
        ids = [each["id"] for each in first["items"] + second["items"]]
        self.assertEqual(ids, [self.alice.session.id, bob.session.id])
        for text in ("a1", "ALICE", self.alice.session.id):
            self.assertEqual([each["subject"] for each in self.get(f"sessions?search={text}")["items"]], ["a1"])
        for text in ("clasp", "test", "192.0.2.1"):
            self.assertEqual(len(self.get(f"sessions?search={text}")["items"]), 2)
        (shown,) = self.get("sessions?search=a1")["items"]
        self.assertEqual((shown["username"], shown["door"], shown["received"]), ("Alice", "clasp", 1))

    def test_session_is_described_and_ended(self) -> None:
        """It is told so; the client may come again."""
        self.alice.send(Subscribe(7, "/chat/user/a1/**"))
        path = f"sessions/{self.alice.session.id}"
        shown = self.get(path)
        self.assertEqual(
            shown["patterns"], [{"id": 7, "pattern": "/chat/user/a1/**", "max_rate": None, "epsilon": None}]
        )
        self.assertGreater(shown["kept_bytes"], 0)
        self.call("DELETE", path)
        assert self.alice.outbox.closed is not None
        self.assertIn("administrator", self.alice.outbox.closed[1])
        self.refused(404, "GET", path)
        self.refused(404, "DELETE", path)
        self.assertEqual(self.world.actions()[-1], ("admin.session.end", "root", "a1"))

    def test_doors_are_listed_with_who_came_in(self) -> None:
        """Kept sessions of MQTT clients with those that are connected."""
        self.alice.session.door = "mqtt-kept"
        mqtt, osc = self.get("doors")["items"]
        self.assertEqual((mqtt["door"], mqtt["clients"], mqtt["messages"]), ("mqtt", 1, 7))
        self.assertEqual([each["door"] for each in mqtt["connected"]], ["mqtt-kept"])
        self.assertEqual((osc["door"], osc["connected"]), ("osc", []))

    def test_decisions_are_explained(self) -> None:
        """As the command line does."""
        for user_id, action, address, given, allowed in (
            ("a1", "write", "/chat/user/a1/profile", {"name": "x"}, True),
            ("b1", "write", "/chat/user/a1/profile", {"name": "x"}, False),
            ("a1", "publish", "/chat/room/r/messages", {"text": "x"}, False),
            ("a1", "read", "/chat/user/a1/friends/x", None, True),
            ("b1", "read", "/chat/user/a1/friends/x", None, False),
            ("a1", "subscribe", "/chat/user/a1/**", None, True),
            ("a1", "subscribe", "/chat/user/*/friends/*", None, False),
        ):
            with self.subTest(user_id=user_id, action=action, address=address):
                body = {"user_id": user_id, "action": action, "address": address, "value": given}
                told = self.call("POST", "explain", body)
                self.assertEqual(told["allowed"], allowed, told)
                self.assertIn(user_id, told["lines"][0])
        self.assertEqual(self.world.actions()[1:], [])
