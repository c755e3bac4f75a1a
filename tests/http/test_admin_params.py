"""Tests of clasp_relay.http.admin_params: the state over HTTP, as an administrator sees and writes it."""

from __future__ import annotations

from clasp_relay.http import admin_params as module
from clasp_relay.wire.messages import Publish, Set
from tests.core.world import value
from tests.http.admin_site import AdminCase

HISTORY = {
    "scopes": ["read:/**", "write:/**"],
    "history": [{"path": "/a/**", "signals": ["param", "event"]}],
    "snapshot_visibility": [{"path": "/hidden/**", "visible": False}],
    "write_rules": [{"path": "/closed/**", "checks": [{"type": "value_null"}]}],
}


class ParamCallsTests(AdminCase):
    """A relay with some params of Alice's."""

    policy = HISTORY

    def setUp(self) -> None:
        """Sets them."""
        super().setUp()
        self.alice = self.world.world.join(self.world.register("Alice", "a1"))
        for number in range(12):
            self.alice.send(Set(f"/a/{number:02}", value(number)))
        self.alice.send(Set("/hidden/x", value({"a": b"\x00"}), ttl=60))

    def addresses(self, pattern: str, limit: int = 200) -> list[str]:
        """Returns the addresses of all pages."""
        found: list[str] = []
        path = f"params?pattern={pattern}&limit={limit}"
        while path:
            told = self.get(path)
            found += [each["address"] for each in told["items"]]
            path = f"params?pattern={pattern}&limit={limit}&after={told['next']}" if told["next"] else ""
        return found

    def test_params_are_listed_whoever_may_see_them(self) -> None:
        """In the order of their addresses, in pages that are bounded in bytes, too."""
        expected = [f"/a/{number:02}" for number in range(12)]
        for limit in (1, 2, 5, 12, 200):
            self.assertEqual(self.addresses("/a/*", limit), expected)
        self.assertEqual(self.addresses("/**")[-1], "/hidden/x")
        self.patch(module, "MAX_PAGE_BYTES", 3)
        self.assertEqual(self.addresses("/a/*"), expected)
        self.assertEqual(self.addresses("/nothing/*"), [])

    def test_param_is_described(self) -> None:
        """With its type, who wrote it, and when it ends."""
        param = self.get("param?address=/hidden/x")
        self.assertEqual((param["type"], param["subject"], param["value"]), ("map", "a1", {"a": {"$bytes": "AA=="}}))
        self.assertEqual(param["writer"], self.alice.session.id)
        self.assertIsInstance(param["expires_at"], float)
        self.assertIsNone(self.get("param?address=/a/00")["expires_at"])
        for obj, kind in ((True, "bool"), (1, "int"), (1.5, "float"), ("x", "string"), (b"x", "bytes"), ([], "array")):
            self.alice.send(Set("/t", value(obj)))
            self.assertEqual(self.get("param?address=/t")["type"], kind)
        self.refused(404, "GET", "param?address=/nothing")

    def test_param_is_written_with_all_rights(self) -> None:
        """Rules do not hold for administrators; a revision that is not current does."""
        told = self.call("PUT", "param", {"address": "/closed/x", "value": {"n": 1}, "ttl": 60})
        self.assertEqual(told, {"revision": 1})
        self.assertEqual(self.get("param?address=/closed/x")["subject"], "clasp.admin")
        self.refused(412, "PUT", "param", {"address": "/closed/x", "value": 2, "revision": 7})
        self.call("PUT", "param", {"address": "/closed/x", "value": 2, "revision": 1})
        self.assertEqual(self.call("DELETE", "param?address=/closed/x"), {"revision": 3})
        self.refused(404, "GET", "param?address=/closed/x")
        self.call("POST", "events", {"address": "/a/e", "value": [1]})
        self.call("POST", "events", {"address": "/a/e"})
        outcomes = [row.entry.outcome for row in self.world.stack.store.audit.after(0, 100)]
        self.assertEqual(outcomes.count("Refused"), 1)
        actions = [(action, target) for action, _, target in self.world.actions()[1:]]
        self.assertEqual(
            actions,
            [("admin.param.set", "/closed/x")] * 4
            + [("admin.param.delete", "/closed/x")]
            + [("admin.event", "/a/e")] * 2,
        )

    def test_history_is_read(self) -> None:
        """As the journal's API reads it."""
        self.alice.send(Publish("/a/e", value=value("hi")))
        entries = self.get("history?pattern=/a/e")
        self.assertEqual([(each["value"], each["author"]) for each in entries], [("hi", "a1")])

    def test_stream_needs_the_token_in_the_header(self) -> None:
        """A ticket is not taken; the stream begins for whoever is admitted."""
        self.refused(400, "GET", "stream")
        self.assertEqual(self.api.ask("HEAD", "stream?pattern=/a/**").status, 400)
        ticket = self.world.stack.accounts.ticket(self.world.root_token, "192.0.2.1")
        self.refused(401, "GET", f"stream?pattern=/a/**&ticket={ticket}", token=None)
