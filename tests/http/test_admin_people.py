"""Tests of clasp_relay.http.admin_people: people, registration, invites and the audit log over HTTP."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from clasp_relay.access.refusals import Busy
from clasp_relay.storage.audit import AuditEntry, AuditRow
from tests.access.console_world import result_of
from tests.access.stack import HOME, START_S
from tests.http.admin_site import AdminCase


class PeopleCallsTests(AdminCase):
    """The administrator Root, the user Alice, and the guest Gina."""

    def setUp(self) -> None:
        """Makes them."""
        super().setUp()
        self.world.register("Alice", "a1")
        self.world.guest("Gina", "g1")

    def test_people_are_listed_and_described(self) -> None:
        """Page by page."""
        found: list[str] = []
        path = "people?limit=1"
        while path:
            told = self.get(path)
            found += [each["user_id"] for each in told["items"]]
            path = f"people?limit=1&after={told['next']}" if told["next"] else ""
        self.assertEqual(found, ["a1", "root", "g1"])
        self.assertEqual([each["user_id"] for each in self.get("people?kind=guest&search=gin")["items"]], ["g1"])
        alice = self.get("people/a1")
        self.assertEqual((alice["username"], alice["kind"], len(alice["devices"])), ("Alice", "user", 1))
        self.refused(404, "GET", "people/nobody")

    def test_people_are_changed(self) -> None:
        """Each change is refused where there is nobody."""
        for method, path, body in (
            ("POST", "people/{}/disable", None),
            ("POST", "people/{}/enable", None),
            ("POST", "people/{}/rename", {"username": "Carol"}),
            ("POST", "people/{}/reset-password", None),
        ):
            with self.subTest(path=path):
                self.refused(404, method, path.format("nobody"), body)
                self.call(method, path.format("a1"), body)
        device = self.get("people/a1")["devices"]
        self.assertEqual(device, [])
        result_of(self.world.stack.accounts.login("Carol", "password", HOME))
        (device,) = self.get("people/a1")["devices"]
        self.call("DELETE", f"people/a1/devices/{device['id']}")
        self.refused(404, "DELETE", f"people/a1/devices/{device['id']}")
        self.refused(409, "POST", "people/a1/rename", {"username": "Root"})
        self.refused(400, "DELETE", "people/root?messages=keep")
        for choice in ("", "?messages=", "?messages=all"):
            self.refused(400, "DELETE", f"people/a1{choice}")
        told = self.call("DELETE", "people/a1?messages=erase")
        self.assertEqual(told, {"finished": True, "params": 0, "files": 0, "messages": 0})
        self.refused(404, "DELETE", "people/a1?messages=erase")

    def test_link_for_a_new_password_is_told_once(self) -> None:
        """Its secret stands behind #, which no server is sent."""
        link = self.call("POST", "people/a1/reset-password")
        self.assertEqual(link["path"], f"/console/reset#{link['secret']}")
        result_of(self.world.console.reset(link["secret"], "new password", HOME))

    def test_registration_and_invites(self) -> None:
        """Chosen, made, revoked."""
        self.assertEqual(self.get("registration"), {"registration": "open", "guests": True, "source": "option"})
        chosen = self.call("PUT", "registration", {"registration": "invite", "guests": False})
        self.assertEqual(chosen, {"registration": "invite", "guests": False, "source": "console"})
        invite = self.call("POST", "invites", {"uses": 2, "expires_in": None})
        self.assertEqual((invite["uses_left"], invite["expires_at"]), (2, None))
        self.assertEqual(self.call("POST", "invites")["uses_left"], 1)
        result_of(self.world.stack.accounts.register("Bob", "password", "b1", None, HOME, invite["invite"]))
        items = self.get("invites")["items"]
        self.assertEqual(sorted(each["uses_left"] for each in items), [1, 1])
        self.assertNotIn("invite", items[0])
        self.call("DELETE", f"invites/{invite['id']}")
        self.refused(404, "DELETE", f"invites/{invite['id']}")
        self.call("PUT", "registration", {"registration": None, "guests": None})


class AuditCallsTests(AdminCase):
    """The audit log."""

    def test_log_is_read_page_by_page(self) -> None:
        """The latest first; by action and text."""
        self.call("POST", "invites")
        first = self.get("audit?limit=2")
        self.assertEqual([each["action"] for each in first["items"]], ["admin.invite", "console"])
        following = self.get(f"audit?after={first['next']}")
        self.assertEqual([each["action"] for each in following["items"]], ["admin.grant", "register"])
        self.assertIsNone(following["next"])
        self.assertEqual(len(self.get("audit?action=register")["items"]), 1)
        self.assertEqual([each["actor"] for each in self.get("audit?search=INVITE")["items"]], ["root"])

    def test_log_is_exported_whole(self) -> None:
        """As JSON lines, the oldest first, with what begins and ends in the middle left out."""
        self.world.stack.store.audit.add(
            [AuditEntry(START_S + number, "x", detail={"n": number}) for number in range(1_200)]
        )
        answer = self.api.ask("GET", "audit/export")
        self.assertEqual(answer.headers["content-type"], "application/x-ndjson")
        self.assertEqual(answer.headers["cache-control"], "no-store")
        rows = [json.loads(line) for line in self.lines(answer.body)]
        self.assertEqual([row["seq"] for row in rows], list(range(1, len(rows) + 1)))
        self.assertEqual([row["detail"]["n"] for row in rows if row["action"] == "x"], list(range(1_200)))
        part = self.api.ask("GET", f"audit/export?from={START_S + 10}&to={START_S + 12}")
        self.assertEqual([json.loads(line)["detail"]["n"] for line in self.lines(part.body)], [10, 11])
        head = self.api.ask("HEAD", "audit/export")
        self.assertEqual((head.status, head.body), (200, b""))

    def lines(self, body: bytes) -> list[bytes]:
        """Returns the lines of a body in chunks."""
        data = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            data += body[: int(size, 16)]
            body = body[int(size, 16) + 2 :]
        return data.splitlines()

    def test_export_that_fails_is_cut_off(self) -> None:
        """So that nobody takes a part for the whole; what fails before it begins is answered."""
        rows = result_of(Deferred.fromCoroutine(self.world.audit.after(0)))

        async def fail(seq: int) -> list[AuditRow]:
            if seq:
                raise KeyError("x")
            return rows

        self.patch(self.world.audit, "after", fail)
        answer = self.api.ask("GET", "audit/export")
        self.assertTrue(answer.body.endswith(b"}\n\r\n"), answer.body[-50:])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

        async def refuse(_seq: int) -> list[AuditRow]:
            raise Busy("Later.", 5)

        self.patch(self.world.audit, "after", refuse)
        self.refused(503, "GET", "audit/export")

    def test_reader_who_goes_before_it_begins_is_no_fault(self) -> None:
        """Whether all of it was asked for, or only the head."""
        for method in ("GET", "HEAD"):
            with self.subTest(method=method):
                first: Deferred[list[AuditRow]] = Deferred()

                async def ask(_seq: int, first: Deferred[list[AuditRow]] = first) -> list[AuditRow]:
                    return await first

                self.patch(self.world.audit, "after", ask)
                protocol, transport = self.api.site.connect()
                lines = f"Host: relay\r\nAuthorization: Bearer {self.api.token}\r\n\r\n"
                protocol.dataReceived(f"{method} /auth/admin/audit/export HTTP/1.1\r\n{lines}".encode())
                self.api.site.clock.advance(0)
                protocol.connectionLost(Failure(ConnectionDone()))
                first.callback([])
                self.assertEqual((transport.value(), self.flushLoggedErrors()), (b"", []))

    def test_reader_who_is_slow_or_gone_is_waited_for(self) -> None:
        """Nothing more is read until it goes on."""
        self.world.stack.store.audit.add([AuditEntry(START_S, "x") for _ in range(1_200)])
        protocol, transport = self.api.site.connect()
        output: Any = transport
        after, asked = self.world.audit.after, list[int]()

        async def ask(seq: int) -> list[AuditRow]:
            asked.append(seq)
            if seq:
                output.producer.pauseProducing()
            return await after(seq)

        self.patch(self.world.audit, "after", ask)
        head = f"GET /auth/admin/audit/export HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {self.api.token}\r\n\r\n"
        protocol.dataReceived(head.encode())
        self.api.site.clock.advance(0)
        self.assertEqual(asked, [0, 500])
        output.producer.resumeProducing()
        self.assertEqual(asked, [0, 500, 1_000])
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(asked, [0, 500, 1_000])

    def test_reader_who_is_gone_is_kept_by_nothing(self) -> None:
        """Not by a reference cycle either, which the garbage collector might not look at any more."""
        protocol, transport = self.api.site.connect()
        output: Any = transport
        after = self.world.audit.after

        async def ask(seq: int) -> list[AuditRow]:
            if seq:
                output.producer.pauseProducing()
            return await after(seq)

        self.patch(self.world.audit, "after", ask)
        gc.disable()
        self.addCleanup(gc.enable)
        head = f"GET /auth/admin/audit/export HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {self.api.token}\r\n\r\n"
        self.world.stack.store.audit.add([AuditEntry(START_S, "x") for _ in range(1_200)])
        protocol.dataReceived(head.encode())
        self.api.site.clock.advance(0)
        (there,) = map(weakref.ref, protocol.requests)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertIsNone(there())
