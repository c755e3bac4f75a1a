"""Tests of clasp_relay.http.admin_api: who may call the console's API, and what a call may look like."""

from __future__ import annotations

import base64

from clasp_relay.access.devices import make_device
from clasp_relay.access.refusals import BadInput
from clasp_relay.http.admin_api import MAX_SEARCH, Call, cursor, page
from clasp_relay.http.site import MAX_BODY_BYTES
from clasp_relay.wire.messages import Set
from tests.access.console_world import ADMIN_TOKEN
from tests.access.stack import HOME, START_S
from tests.core.world import value
from tests.http.admin_site import OPENAPI, AdminCase


def filled(path: str) -> str:
    """Returns a path with something for each name."""
    return "/".join("x" if segment.startswith("{") else segment for segment in path.split("/"))


class AdmissionTests(AdminCase):
    """Every call, and who may make it."""

    def test_every_call_is_refused_to_everybody_else(self) -> None:
        """Without a token, with one that is not valid or is over, with anybody's own; and nothing is changed by it."""
        tokens: dict[str | None, int] = {
            None: 401,
            "nonsense": 401,
            "cpca_" + "0" * 32: 401,
            "cpsk_" + "1" * 32: 401,
            self.world.register("Alice", "a1"): 403,
            self.world.guest("Gina", "g1"): 403,
            self.world.root_token: 403,
        }
        device, _ = make_device(
            self.world.stack.store.devices, ("admin:/**",), None, "", START_S, None, self.world.stack.random_hex
        )
        self.world.devices.load()
        self.world.do(self.world.devices.reload())
        tokens[device] = 403
        over = self.world.sign_in()
        self.world.console.end(over)
        tokens[over] = 401
        before = (len(self.world.relay.params), len(self.world.actions()))
        for route in self.api.routes:
            for token, status in tokens.items():
                with self.subTest(call=f"{route.method} {route.path}", token=token):
                    self.refused(status, route.method, filled(route.path), {}, token=token)
        self.assertEqual((len(self.world.relay.params), len(self.world.actions())), before)
        self.assertEqual(self.world.stack.store.administration.counts(), (2, 0))

    def test_token_counts_in_the_header_alone(self) -> None:
        """Another site's page can neither set that header nor use a cookie or a query in its place."""
        token = self.api.token
        for path, headers in (
            (f"me?token={token}", ""),
            (f"me?access_token={token}&ticket={token}", ""),
            ("me", f"Cookie: token={token}\r\n"),
            ("me", f"Authorization: Basic {token}\r\n"),
            ("me", f"X-Token: {token}\r\n"),
        ):
            with self.subTest(path=path, headers=headers):
                self.refused(401, "GET", path, token=None, headers=headers)

    def test_console_token_opens_nothing_else(self) -> None:
        """Neither the API for params nor the journal."""
        for path in ("../params/a", "../journal/query"):
            answer = self.api.site.request("GET", f"/auth/{path[3:]}", bearer=self.api.token)
            self.assertEqual(answer.status, 401)

    def test_document_has_every_route_and_no_other(self) -> None:
        """With its methods."""
        described = {
            (method.upper(), path.removeprefix("/api/admin/"))
            for path, methods in OPENAPI["paths"].items()
            if path.startswith("/api/admin/")
            for method in methods
            if method != "parameters"
        }
        self.assertEqual({(route.method, route.path) for route in self.api.routes}, described)

    def test_caller_is_described_and_signs_out(self) -> None:
        """The admin token is let in, and stays."""
        me = self.get("me")
        self.assertEqual((me["user_id"], me["username"], me["kind"]), ("root", "Root", "console"))
        self.assertEqual(self.get("me", token=ADMIN_TOKEN)["kind"], "token")
        self.call("POST", "logout", token=ADMIN_TOKEN)
        self.get("me", token=ADMIN_TOKEN)
        self.call("POST", "logout")
        self.refused(401, "GET", "me")

    def test_requests_that_name_nothing_are_refused(self) -> None:
        """Before anybody is asked who they are."""
        for path in ("", "nothing", "me/more", "people/", "people//disable", "me%2F", "people/a%2Fb", "people/%FF"):
            with self.subTest(path=path):
                self.assertEqual(self.api.ask("GET", path, token=None).status, 404)
        refused = self.api.ask("PATCH", "me", token=None)
        self.assertEqual((refused.status, refused.headers["allow"]), (405, "GET, HEAD, OPTIONS"))
        self.assertEqual(self.api.ask("OPTIONS", "me", token=None).status, 204)
        head = self.api.ask("HEAD", "me")
        self.assertEqual((head.status, head.body), (200, b""))
        self.refused(413, "POST", "logout", b" " * (MAX_BODY_BYTES + 1))

    def test_fault_is_no_secret_told(self) -> None:
        """It is logged."""

        async def fail() -> object:
            raise KeyError("secret")

        self.patch(self.world.people, "counts", fail)
        answer = self.api.ask("GET", "overview")
        self.assertEqual(answer.status, 500)
        self.assertNotIn("secret", answer.body.decode())
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class AuditTests(AdminCase):
    """Every call that changes something."""

    def test_every_change_is_in_the_audit_log(self) -> None:
        """With who made it; what only reads is not there."""
        alice = self.world.world.join(self.world.register("Alice", "a1"))
        for address in ("/chat/room/r1/meta", "/chat/room/r1/presence/a1", "/chat/reports/n1"):
            alice.send(Set(address, value({"name": "Room", "roomId": "r1"})))
        self.world.register("Bob", "b1")
        _, info = self.world.do(self.world.people.make_invite(self.world.root, HOME, 1, None))
        _, (device,) = self.world.do(self.world.people.one("b1"))
        calls: list[tuple[str, str, str, object]] = [
            ("POST", "people/{user_id}/disable", "people/b1/disable", None),
            ("POST", "people/{user_id}/enable", "people/b1/enable", None),
            ("POST", "people/{user_id}/rename", "people/b1/rename", {"username": "Ben"}),
            ("POST", "people/{user_id}/reset-password", "people/b1/reset-password", None),
            ("DELETE", "people/{user_id}", "people/b1?messages=erase", None),
            ("PUT", "registration", "registration", {"registration": "open", "guests": True}),
            ("POST", "invites", "invites", {}),
            ("DELETE", "invites/{id}", f"invites/{info.id}", None),
            ("POST", "rooms/{room_id}/bans", "rooms/r1/bans", {"user_id": "b1"}),
            ("DELETE", "rooms/{room_id}/bans/{user_id}", "rooms/r1/bans/b1", None),
            ("DELETE", "rooms/{room_id}", "rooms/r1", None),
            ("POST", "reports/{id}/resolve", "reports/n1/resolve", None),
            ("DELETE", "reports/{id}", "reports/n1", None),
            ("DELETE", "sessions/{id}", f"sessions/{alice.session.id}", None),
            ("PUT", "param", "param", {"address": "/x", "value": 1}),
            ("DELETE", "param", "param?address=/x", None),
            ("POST", "events", "events", {"address": "/x"}),
        ]
        device_path = f"people/b1/devices/{device.sign_in[:8].hex()}"
        calls.insert(0, ("DELETE", "people/{user_id}/devices/{device_id}", device_path, None))
        calls.append(("POST", "logout", "logout", None))
        changing = {(each.method, each.path) for each in self.api.routes if each.method != "GET"}
        self.assertEqual({call[:2] for call in calls}, changing - {("POST", "explain")})
        for method, template, path, body in calls:
            with self.subTest(call=f"{method} {template}"):
                before = len(self.world.actions())
                self.call(method, path, body)
                ((_, actor, _),) = self.world.actions()[before:]
                self.assertEqual(actor, "root")


class InputTests(AdminCase):
    """What a request may say."""

    def test_bad_input_is_answered_in_a_sentence(self) -> None:
        """Each with what is wrong."""
        broken = base64.urlsafe_b64encode(b'["user","\\ud800","x"]').decode().rstrip("=")
        bad_cursors = ("x", "!", "W10", broken, cursor([1, 2, 3]), cursor(["user"]), cursor(["guest", "a", "b"]), "é")
        for path in (
            "people?limit=0",
            "people?limit=201",
            "people?limit=x",
            "people?kind=none",
            f"people?search={'x' * (MAX_SEARCH + 1)}",
            "people?search=%FF",
            *(f"people?after={each.encode().hex() if each == 'é' else each}" for each in bad_cursors),
            f"rooms?after={cursor([1])}",
            f"audit?after={cursor(['1'])}",
            f"audit?after={cursor([1 << 70])}",
            f"audit?after={cursor([-1])}",
            f"audit?after={cursor([True])}",
            f"sessions?after={cursor(['1', 2])}",
            "log?after=-1",
            "audit/export?from=x",
            "params?pattern=a",
            "history?limit=x",
        ):
            with self.subTest(path=path):
                self.refused(400, "GET", path)
        for method, path, body in (
            ("POST", "people/a/rename", b"{"),
            ("POST", "people/a/rename", []),
            ("POST", "people/a/rename", {}),
            ("POST", "people/a/rename", {"username": 1}),
            ("PUT", "registration", {"registration": "open"}),
            ("PUT", "registration", {"registration": "none", "guests": None}),
            ("PUT", "registration", {"registration": None, "guests": 1}),
            ("POST", "invites", {"uses": 0}),
            ("POST", "invites", {"uses": True}),
            ("POST", "invites", {"expires_in": 59}),
            ("POST", "explain", {"user_id": "a", "address": "/a", "action": "fly"}),
            ("POST", "explain", {"user_id": "a/b", "address": "/a", "action": "read"}),
            ("POST", "explain", {"user_id": "a", "address": "a", "action": "read"}),
            ("POST", "explain", {"user_id": "a", "address": "/a", "action": "read", "is_account": 1}),
            ("PUT", "param", {"address": "/a"}),
            ("PUT", "param", {"address": "a", "value": 1}),
            ("PUT", "param", {"address": "/a", "value": 1 << 70}),
            ("PUT", "param", {"address": "/a", "value": 1, "ttl": -1}),
            ("PUT", "param", {"address": "/a", "value": 1, "revision": True}),
            ("DELETE", "param", None),
            ("POST", "events", {"address": "/*"}),
        ):
            with self.subTest(method=method, path=path, body=body):
                self.refused(400, method, path, body)

    def test_cursor_is_read_as_it_was_written(self) -> None:
        """Whatever text is in it."""
        self.assertEqual(page([1], None), {"items": [1], "next": None})
        for parts in (["a", "é/?&="], [1, "x"], []):
            text = cursor(parts)
            self.assertRegex(text, r"^[A-Za-z0-9_-]*$")
            kinds = [type(part) for part in parts]
            self.assertEqual(Call(_Asked(text), self.world.root, "", {}).after(*kinds), parts)
        self.assertIsNone(Call(_Asked(""), self.world.root, "", {}).after())
        self.assertRaises(BadInput, Call(_Asked("x" * 9), self.world.root, "", {}).after)


class _Asked:
    """A request with a place in a list."""

    def __init__(self, after: str) -> None:
        self.args = {b"after": [after.encode()]}
