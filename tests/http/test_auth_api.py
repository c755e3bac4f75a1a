"""The auth API, over HTTP without sockets."""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from klein import Klein
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.static import Data
from twisted.web.test.requesthelper import DummyRequest

from clasp_relay.access.accounts import Admission
from clasp_relay.access.addresses import ClientAddresses, parse_networks
from clasp_relay.access.limits import RateLimits
from clasp_relay.access.refusals import Later, Refusal
from clasp_relay.access.tokens import TokenUnknown
from clasp_relay.access.turn_server import TurnServer
from clasp_relay.core.session.identity import Identity
from clasp_relay.http.auth_api import STATUS, AuthApi, load_openapi, make_auth_resource, request_address
from clasp_relay.http.cors import Origins
from clasp_relay.http.site import MAX_BODY_BYTES
from clasp_relay.push.destinations import Places
from clasp_relay.push.subscriptions import Subscriptions
from clasp_relay.push.web_push import WebPush
from clasp_relay.settings import Settings
from tests.access.stack import START_S, TTL_S, InlineWorkers, Stack, SteppedWorkers
from tests.core.world import World
from tests.http.memory_site import Answer, MemorySite, parse_answer
from tests.push.push_service import Browser

DOCS = Path(__file__).parent.parent.parent / "docs"
ALICE = {"username": "Alice", "password": "password", "user_id": "a1"}
ROUTES = {
    "/auth/register": "POST",
    "/auth/login": "POST",
    "/auth/guest": "POST",
    "/auth/admin": "POST",
    "/auth/reset": "POST",
    "/auth/logout": "POST",
    "/auth/refresh": "POST",
    "/auth/password": "POST",
    "/auth/sessions": "GET",
    "/auth/sessions/0123456789abcdef": "DELETE",
    "/auth/me": "GET",
    "/auth/config": "GET",
    "/auth/ticket": "POST",
    "/auth/turn": "GET",
    "/auth/push": "GET POST DELETE",
    "/auth/openapi.json": "GET",
}


class ApiTestCase(SynchronousTestCase):
    """A site over accounts in memory."""

    def setUp(self) -> None:
        """Makes the site."""
        self.use(Stack(limits=RateLimits(5, 900, 1000, 900)))

    def use(self, stack: Stack, origins: Origins | None = None, **options: Any) -> None:
        """Makes the site over other accounts."""
        self.stack = stack
        given = {"origins": origins or Origins(None), "addresses": ClientAddresses(()), **options}
        self.site = MemorySite(make_auth_resource(stack.accounts, **given))

    def post(self, path: str, body: object = None, bearer: str | None = None) -> Answer:
        """Posts to the API."""
        return self.site.request("POST", path, body, bearer=bearer)

    def token(self, path: str, body: object, bearer: str | None = None) -> str:
        """Posts, and returns the token that this gave."""
        answer = self.post(path, body, bearer)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(set(answer.json), {"token", "user_id", "username"})
        token: str = answer.json["token"]
        return token

    def assert_error(self, answer: Answer, status: int, words: str = "") -> None:
        """Asserts that an answer is an error of the one shape there is."""
        self.assertEqual(answer.status, status, answer.body)
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(list(answer.json), ["error"])
        self.assertIn(words, answer.json["error"])


class CallTests(ApiTestCase):
    """Every call, and what it answers."""

    def test_register_login_and_guest_give_a_token(self) -> None:
        """With the id and the name that it stands for; never to be stored on the way."""
        answer = self.post("/auth/register", ALICE)
        self.assertEqual(answer.status, 200)
        self.assertEqual((answer.json["user_id"], answer.json["username"]), ("a1", "Alice"))
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(int(answer.headers["content-length"]), len(answer.body))
        self.token("/auth/login", {"username": "alice", "password": "password"})
        guest = self.post("/auth/guest", {"name": "Zoë", "user_id": "g1"})
        self.assertEqual((guest.json["user_id"], guest.json["username"]), ("g1", "Zoë"))
        self.token("/auth/guest", {"name": None, "user_id": None})
        self.token("/auth/guest", {})

    def test_ticket_stands_for_the_token(self) -> None:
        """Only for one that is valid."""
        token = self.token("/auth/register", ALICE)
        answer = self.post("/auth/ticket", bearer=token)
        self.assertEqual((answer.status, answer.headers["cache-control"]), (200, "no-store"))
        self.assertEqual(self.stack.accounts.tickets.take(answer.json["ticket"]), token)
        for bearer in (None, "nonsense"):
            self.assert_error(self.post("/auth/ticket", bearer=bearer), 401)

    def test_me_tells_what_a_token_stands_for(self) -> None:
        """HEAD gives the same head without the body."""
        token = self.token("/auth/register", ALICE)
        answer = self.site.request("GET", "/auth/me", bearer=token)
        expected = {
            "user_id": "a1",
            "username": "Alice",
            "guest": False,
            "scopes": ["read:/a1/**", "write:/**"],
            "expires_at": START_S + TTL_S,
        }
        self.assertEqual((answer.status, answer.json), (200, expected))
        head = self.site.request("HEAD", "/auth/me", bearer=token)
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.headers["content-length"], answer.headers["content-length"])

    def test_turn_gives_credentials_to_who_is_in_a_call(self) -> None:
        """403 to others, and an empty list where there is no server."""
        in_call = {"a1"}
        self.use(Stack(), turn=TurnServer(["turn:t.example:3478"], "s3cret", in_call.__contains__, lambda: START_S))
        token = self.token("/auth/register", ALICE)
        answer = self.site.request("GET", "/auth/turn", bearer=token)
        self.assertEqual((answer.status, answer.headers["cache-control"]), (200, "no-store"))
        self.assertEqual(answer.json["expires_at"], START_S + 600)
        (server,) = answer.json["ice_servers"]
        self.assertEqual((server["urls"], server["username"]), (["turn:t.example:3478"], f"{START_S + 600}:a1"))
        in_call.clear()
        self.assert_error(self.site.request("GET", "/auth/turn", bearer=token), 403, "Join a call")
        self.assert_error(self.site.request("GET", "/auth/turn"), 401)
        self.use(Stack())
        token = self.token("/auth/register", ALICE)
        self.assertEqual(self.site.request("GET", "/auth/turn", bearer=token).json["ice_servers"], [])

    def test_browsers_subscribe_to_push(self) -> None:
        """And end that; 404 where the relay sends no push messages."""
        token = self.token("/auth/register", ALICE)
        for method in ("GET", "POST", "DELETE"):
            self.assert_error(self.site.request(method, "/auth/push", bearer=token), 404, "no push messages")
        push = WebPush(Settings(), Clock(), World().relay, Identity(), lambda *_: True)
        push.subscriptions = Subscriptions(Places(lambda *_: succeed(["8.8.8.8"])), lambda: START_S)
        push.open(self.stack.store.push, InlineWorkers())
        self.use(self.stack, push=push)
        self.assertEqual(self.site.request("GET", "/auth/push").json, {"public_key": push.public_key})
        self.assertTrue(self.site.request("GET", "/auth/config").json["push"])
        browser = Browser()
        mine = browser.subscription("https://push.example/1")
        for bearer, body, status in (
            (None, mine, 401),
            (token, None, 400),
            (token, {**mine, "keys": None}, 400),
            (token, {**mine, "keys": {}}, 400),
            (token, {**mine, "endpoint": None}, 400),
            (token, browser.subscription("http://push.example/1"), 400),
        ):
            with self.subTest(bearer=bearer, body=body):
                self.assert_error(self.post("/auth/push", body, bearer), status)
        for name in "123":
            answer = self.post("/auth/push", browser.subscription(f"https://push.example/{name}"), token)
            self.assertEqual((answer.status, answer.json), (201, {}))
        self.assert_error(self.site.request("DELETE", "/auth/push"), 401)
        ends: list[tuple[dict[str, object] | None, int]] = [
            ({"endpoint": "https://push.example/1"}, 2),
            ({"endpoint": "https://none/"}, 2),
            (None, 0),
        ]
        for body, left in ends:
            answer = self.site.request("DELETE", "/auth/push", body, bearer=token)
            self.assertEqual((answer.status, answer.json, len(push.subscriptions)), (200, {}, left))

    def test_browser_whose_sign_in_ends_meanwhile_does_not_subscribe(self) -> None:
        """However long its push service takes to be found."""
        token = self.token("/auth/register", ALICE)
        look_up: Deferred[list[str]] = Deferred()
        push = WebPush(Settings(), Clock(), World().relay, Identity(), lambda *_: True)
        push.subscriptions = Subscriptions(Places(lambda *_: look_up), lambda: START_S)
        push.open(self.stack.store.push, InlineWorkers())
        self.stack.tokens.on_end(push.token_ended)
        self.use(self.stack, push=push)
        waiting = self.site.start("POST", "/auth/push", Browser().subscription("https://push.example/1"), bearer=token)
        self.assertEqual(self.post("/auth/logout", None, token).status, 200)
        look_up.callback(["8.8.8.8"])
        self.assert_error(parse_answer(waiting.value()), 401)
        self.assertEqual((len(push.subscriptions), self.stack.store.push.all()), (0, []))

    def test_config_tells_who_may_sign_in(self) -> None:
        """To everybody."""
        answer = self.site.request("GET", "/auth/config")
        told = {"registration": "open", "guests": True, "name": "", "files": None, "push": False}
        self.assertEqual((answer.status, answer.json), (200, told))
        self.use(Stack(admission=Admission(files={"max_file": 7})))
        self.assertEqual(self.site.request("GET", "/auth/config").json["files"], {"max_file": 7})

    def test_logout_refresh_and_password_take_the_bearers_token(self) -> None:
        """Each does what it says."""
        first = self.token("/auth/register", ALICE)
        second = self.token("/auth/refresh", None, first)
        done = self.post("/auth/password", {"old": "password", "new": "new password"}, second)
        self.assertEqual((done.status, done.json), (200, {}))
        self.assertRaises(TokenUnknown, self.stack.tokens.lookup, first)
        done = self.post("/auth/logout", None, second)
        self.assertEqual((done.status, done.json), (200, {}))
        self.assertRaises(TokenUnknown, self.stack.tokens.lookup, second)

    def test_sessions_are_listed_and_ended(self) -> None:
        """By the device that asks, which is marked."""
        here = self.token("/auth/register", {**ALICE, "device": "Desk"})
        there = self.token("/auth/login", {**ALICE, "device": "Phone"})
        there = self.token("/auth/refresh", {"device": "Tablet"}, there)
        listed = self.site.request("GET", "/auth/sessions", bearer=here)
        self.assertEqual(listed.status, 200)
        self.assertEqual({each["device"]: each["current"] for each in listed.json}, {"Desk": True, "Tablet": False})
        self.assertEqual(set(listed.json[0]), {"id", "device", "created_at", "last_seen", "current"})
        path = "/auth/sessions/" + next(each["id"] for each in listed.json if not each["current"])
        done = self.site.request("DELETE", path, bearer=here)
        self.assertEqual((done.status, done.json), (200, {}))
        self.assertRaises(TokenUnknown, self.stack.tokens.lookup, there)
        self.assert_error(self.site.request("DELETE", path, bearer=here), 404, "no such session")
        guest = self.token("/auth/guest", {"device": "Kiosk"})
        self.assertEqual(self.site.request("GET", "/auth/sessions", bearer=guest).json[0]["device"], "Kiosk")

    def test_guests_token_proves_the_guests_id(self) -> None:
        """To guest and to register."""
        body = {"name": "Gina", "user_id": "g1"}
        first = self.token("/auth/guest", body)
        self.assert_error(self.post("/auth/guest", body), 409, "identity belongs to a registered user")
        second = self.token("/auth/guest", body, first)
        user = {"username": "Gina", "password": "password", "user_id": "g1"}
        self.assert_error(self.post("/auth/register", user), 409, "identity belongs to a registered user")
        self.token("/auth/register", user, second)
        self.assert_error(self.post("/auth/guest", body, first), 409)

    def test_openapi_is_served(self) -> None:
        """As JSON."""
        answer = self.site.request("GET", "/auth/openapi.json")
        paths = {path for path in answer.json["paths"] if path.startswith("/auth/")}
        described = {path.replace("0123456789abcdef", "{session_id}") for path in ROUTES}
        self.assertEqual((answer.status, paths), (200, described))


class ErrorTests(ApiTestCase):
    """Every error, each a sentence."""

    def test_every_refusal_has_a_status(self) -> None:
        """Those that are raised; two are only there to be inherited from."""
        kinds = {*Refusal.__subclasses__(), *Later.__subclasses__()} - {Later}
        self.assertEqual(set(STATUS), kinds)

    def test_body_that_is_no_json_object_is_refused(self) -> None:
        """Whatever is wrong with it, and it is the sender's fault."""
        bodies = [
            b"",
            b"{",
            b"[]",
            b"null",
            b'"x"',
            b"\xff\xfe{}",
            b"[" * 16_000,
            b'{"a":' * 3_000,
            b'{"username": ' + b"9" * 5_000 + b"}",
            "{}".encode("utf-16"),
            b"username=Alice&password=password",
        ]
        for path in ("/auth/register", "/auth/login", "/auth/guest"):
            for body in bodies:
                with self.subTest(path=path, body=body[:20]):
                    self.assert_error(self.post(path, body), 400)

    def test_missing_and_wrong_fields_are_named(self) -> None:
        """By the key that the client sent, and nothing else of what it sent."""
        cases: list[tuple[str, dict[str, Any], str]] = [
            ("/auth/register", {"password": "password"}, "«username» is missing."),
            ("/auth/register", {"username": "Alice"}, "«password» is missing."),
            ("/auth/register", {**ALICE, "username": 7}, "«username» is not a string."),
            ("/auth/register", {**ALICE, "password": ["x"]}, "«password» is not a string."),
            ("/auth/register", {**ALICE, "user_id": {}}, "«user_id» is not a string."),
            ("/auth/register", {**ALICE, "username": "\ud800\ud800"}, "«username» is not valid text."),
            ("/auth/register", {**ALICE, "password": "12345"}, "at least 6"),
            ("/auth/register", {**ALICE, "password": "x" * 1025}, "at most 1024"),
            ("/auth/register", {**ALICE, "user_id": "a/b"}, "A user_id has"),
            ("/auth/register", {**ALICE, "username": "x"}, "2 to 32"),
            ("/auth/login", {"username": "Alice"}, "«password» is missing."),
            ("/auth/login", {"username": None, "password": "x"}, "«username» is missing."),
            ("/auth/login", {"username": "\udc00", "password": "x"}, "not valid text"),
            ("/auth/guest", {"name": ""}, "1 to 32"),
            ("/auth/guest", {"name": 1}, "«name» is not a string."),
            ("/auth/guest", {"user_id": "é"}, "A user_id has"),
        ]
        for path, body, words in cases:
            with self.subTest(path=path, body=body):
                self.assert_error(self.post(path, body), 400, words)

    def test_wrong_password_and_unknown_user_get_the_same_bytes(self) -> None:
        """Headers included."""
        self.token("/auth/register", ALICE)
        wrong = self.post("/auth/login", {"username": "Alice", "password": "wrong"})
        nobody = self.post("/auth/login", {"username": "nobody", "password": "wrong"})
        self.assert_error(wrong, 401, "The username or the password is wrong.")
        without_date = [{**answer.headers, "date": ""} for answer in (wrong, nobody)]
        self.assertEqual((without_date[0], wrong.body), (without_date[1], nobody.body))

    def test_calls_of_a_bearer_answer_401_without_a_valid_token(self) -> None:
        """And say how to authenticate."""
        password = {"old": "password", "new": "new password"}
        calls = [("POST", "/auth/logout", None), ("POST", "/auth/refresh", None), ("POST", "/auth/password", password)]
        calls += [("GET", "/auth/sessions", None), ("DELETE", "/auth/sessions/x", None)]
        for method, path, body in [*calls, ("GET", "/auth/me", None)]:
            for bearer in (None, "cpsk_" + "0" * 32):
                with self.subTest(path=path, bearer=bearer):
                    answer = self.site.request(method, path, body, bearer=bearer)
                    self.assert_error(answer, 401)
                    self.assertEqual(answer.headers["www-authenticate"], "Bearer")

    def test_password_answers_400_and_401(self) -> None:
        """A guest, a bad new one, a missing field; a wrong old one."""
        alice, guest = self.token("/auth/register", ALICE), self.token("/auth/guest", {})
        for bearer, body, status in (
            (guest, {"old": "password", "new": "new password"}, 400),
            (alice, {"old": "password", "new": "short"}, 400),
            (alice, {"old": "password"}, 400),
            (alice, b"x", 400),
            (alice, {"old": "wrong", "new": "new password"}, 401),
        ):
            with self.subTest(body=body):
                self.assert_error(self.post("/auth/password", body, bearer), status)

    def test_refresh_refuses_a_body_that_is_no_json(self) -> None:
        """And takes none."""
        alice = self.token("/auth/register", ALICE)
        for body in (b"x", b"[]", {"device": 1}):
            self.assert_error(self.post("/auth/refresh", body, alice), 400)
        self.token("/auth/refresh", None, alice)

    def test_taken_names_and_ids_answer_409(self) -> None:
        """Only the sentence about an id has the word «identity»: clients throw theirs away at it."""
        self.token("/auth/register", ALICE)
        name = [("/auth/register", {**ALICE, "username": "ALICE", "user_id": "b1"}), ("/auth/guest", {"name": "alice"})]
        for path, body in name:
            answer = self.post(path, body)
            self.assert_error(answer, 409, "This name belongs to a registered user.")
            self.assertNotIn(b"identity", answer.body)
        for path, body in (("/auth/register", {**ALICE, "username": "Bob"}), ("/auth/guest", {"user_id": "a1"})):
            self.assert_error(
                self.post(path, body),
                409,
                "This identity belongs to a registered user or to another guest who is signed in.",
            )

    def test_body_of_more_than_16_kib_answers_413(self) -> None:
        """One byte less is looked at. That goes for every path."""
        padding = MAX_BODY_BYTES - len(json.dumps({"x": ""}))
        self.token("/auth/guest", {"x": "y" * padding})
        for path in ("/auth/register", "/auth/login", "/auth/guest", "/auth/logout", "/auth/password", "/auth/nothing"):
            with self.subTest(path=path):
                self.assert_error(self.post(path, {"x": "y" * (padding + 1)}), 413)

    def test_too_many_tries_answer_429(self) -> None:
        """With the seconds to wait, rounded up."""
        self.use(Stack(limits=RateLimits(1, 900, 1, 60)))
        self.token("/auth/register", ALICE)
        self.token("/auth/guest", {})
        self.assert_error(self.post("/auth/login", {"username": "Alice", "password": "wrong"}), 401)
        self.stack.clock.advance(0.5)
        for path, body, wait in (
            ("/auth/register", {**ALICE, "username": "Bob"}, "60"),
            ("/auth/guest", {}, "60"),
            ("/auth/login", {"username": "Alice", "password": "password"}, "900"),
        ):
            with self.subTest(path=path):
                answer = self.post(path, body)
                self.assert_error(answer, 429, "Try again in")
                self.assertEqual(answer.headers["retry-after"], wait)
                self.assertEqual(answer.headers["access-control-expose-headers"], "ETag, Content-Range, Retry-After")

    def test_busy_relay_answers_503(self) -> None:
        """With the seconds to wait."""
        self.use(Stack(max_tokens=0))
        for path, body in (("/auth/register", ALICE), ("/auth/guest", {}), ("/auth/login", ALICE)):
            with self.subTest(path=path):
                answer = self.post(path, body)
                self.assert_error(answer, 503)
                self.assertEqual(answer.headers["retry-after"], "60")

    def test_unknown_path_answers_404(self) -> None:
        """Whatever is odd about it."""
        paths = ["/auth", "/auth/", "/auth/nothing", "/auth/login/", "/auth//login", "/auth/login/x", "/auth/%ff"]
        paths += ["/auth/sessions/", "/auth/sessions/x/y", "/auth//sessions/x", "/auth/sessions/%ff"]
        for path in [*paths, "/auth/LOGIN", "/auth/..%2flogin"]:
            for method in ("GET", "POST", "OPTIONS"):
                with self.subTest(path=path, method=method):
                    self.assert_error(self.site.request(method, path), 404)

    def test_wrong_method_answers_405_with_the_right_ones(self) -> None:
        """OPTIONS, where it is no preflight, says the same."""
        for path, methods in ROUTES.items():
            right = set(methods.split())
            allow = ", ".join(sorted({*right, "OPTIONS"} | ({"HEAD"} if "GET" in right else set())))
            for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "X"} - right:
                with self.subTest(path=path, method=method):
                    answer = self.site.request(method, path)
                    self.assert_error(answer, 405)
                    self.assertEqual(answer.headers["allow"], allow)
            options = self.site.request("OPTIONS", path)
            self.assertEqual((options.status, options.body, options.headers["allow"]), (204, b"", allow))
        head = self.site.request("HEAD", "/auth/login")
        self.assertEqual((head.status, head.body), (405, b""))

    def test_malformed_request_is_the_clients_fault(self) -> None:
        """A Host that is none, or not even text."""
        for host in (b"x" * 80 + b".example", b"a..b", b"\xff"):
            with self.subTest(host=host):
                answer = self.site.send(b"GET /auth/me HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
                self.assert_error(answer, 400, "The request is malformed.")

    def test_host_may_end_with_a_colon(self) -> None:
        """RFC 9110 §4.2.3: an empty port is the scheme's own."""
        for host in (b"relay:", b"[::1]:"):
            with self.subTest(host):
                answer = self.site.send(b"GET /auth/openapi.json HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
                self.assertEqual(answer.status, 200)

    def test_fault_of_ours_answers_500_and_says_nothing(self) -> None:
        """What went wrong is in the log."""

        def broken(*_: object) -> None:
            raise OSError("/secret/path: disk full")

        self.patch(self.stack.store, "find_user", broken)
        answer = self.post("/auth/login", {"username": "Alice", "password": "password"})
        self.assert_error(answer, 500, "The relay has a problem.")
        self.assertNotIn(b"secret", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_client_that_hangs_up_does_no_harm(self) -> None:
        """What it asked for is done, and nothing is logged as a fault."""
        sql = SteppedWorkers()
        self.use(Stack(sql=sql))
        protocol, transport = self.site.connect()
        protocol.dataReceived(b"POST /auth/guest HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        protocol.connectionLost(Failure(ConnectionLost()))
        sql.finish()
        self.assertEqual((len(self.stack.tokens), transport.value()), (1, b""))
        self.assertEqual(self.flushLoggedErrors(), [])


class CorsTests(ApiTestCase):
    """What pages of other origins may do."""

    def ask(self, method: str, origin: str | None) -> Answer:
        """Asks as a browser would."""
        headers = {} if origin is None else {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return self.site.request(method, "/auth/login", {}, headers=headers)

    def test_listed_origins_and_the_relays_own_may_read_answers(self) -> None:
        """Errors included; the answers are not mixed up by caches."""
        self.use(Stack(), Origins(["https://chat.example"]))
        for origin, allowed in (
            ("https://chat.example", "https://chat.example"),
            ("http://relay.example", "http://relay.example"),
            ("https://relay.example", None),
            ("https://evil.example", None),
            (None, None),
        ):
            with self.subTest(origin=origin):
                for method, status in (("POST", 400), ("OPTIONS", 204)):
                    answer = self.ask(method, origin)
                    self.assertEqual(answer.status, status)
                    self.assertEqual(answer.headers.get("access-control-allow-origin"), allowed)
                    self.assertEqual(answer.headers["vary"], "Origin")
                    exposed = None if allowed is None else "ETag, Content-Range, Retry-After"
                    self.assertEqual(answer.headers.get("access-control-expose-headers"), exposed)
                    self.assertNotIn("access-control-allow-credentials", answer.headers)

    def test_preflight_tells_methods_and_headers(self) -> None:
        """And has no body; other answers have no need of it."""
        for origins, allowed in ((None, "*"), (Origins(["https://chat.example"]), "https://chat.example")):
            self.use(Stack(), origins)
            answer = self.ask("OPTIONS", "https://chat.example")
            self.assertEqual((answer.status, answer.body), (204, b""))
            self.assertEqual(answer.headers["access-control-allow-origin"], allowed)
            self.assertEqual(answer.headers["access-control-allow-methods"], "GET, HEAD, POST, PUT, DELETE, OPTIONS")
            self.assertEqual(
                answer.headers["access-control-allow-headers"],
                "Content-Type, Authorization, If-Match, If-None-Match, If-Range, Range, Last-Event-ID",
            )
            self.assertNotIn("access-control-allow-methods", self.ask("POST", "https://chat.example").headers)

    def test_every_kind_of_error_can_be_read_by_a_page(self) -> None:
        """404, 405 and 413, too."""
        for answer in (
            self.site.request("GET", "/auth/nothing"),
            self.site.request("GET", "/auth/login"),
            self.post("/auth/login", b"x" * (MAX_BODY_BYTES + 1)),
        ):
            self.assertEqual(answer.headers["access-control-allow-origin"], "*")


class AddressTests(ApiTestCase):
    """Whose tries are counted."""

    def guest_from(self, peer: str, forwarded: str | None = None) -> int:
        """Asks for a guest; returns the status."""
        headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
        return self.site.request("POST", "/auth/guest", {}, headers=headers, peer=peer).status

    def test_clients_behind_a_trusted_proxy_are_counted_apart(self) -> None:
        """And nobody else is believed."""
        self.use(Stack(limits=RateLimits(5, 900, 1, 900)), addresses=ClientAddresses(parse_networks("127.0.0.1")))
        self.assertEqual(self.guest_from("127.0.0.1", "203.0.113.1"), 200)
        self.assertEqual(self.guest_from("127.0.0.1", "203.0.113.2"), 200)
        self.assertEqual(self.guest_from("127.0.0.1", "9.9.9.9, 203.0.113.2"), 429)
        self.assertEqual(self.guest_from("203.0.113.3", "203.0.113.4"), 200)
        self.assertEqual(self.guest_from("203.0.113.3", "203.0.113.5"), 429)

    def test_peer_without_an_address_is_local(self) -> None:
        """A Unix socket."""
        request = DummyRequest([b""])
        request.client = UNIXAddress("/run/relay.sock")
        self.assertEqual(request_address(request, ClientAddresses(())), "local")  # type: ignore[arg-type]


class PageTests(ApiTestCase):
    """The app's own page at /auth."""

    def test_page_is_shown_at_auth_itself_only(self) -> None:
        """Below it is the API."""
        self.use(Stack(), page=Data(b"<html>", "text/html"))
        self.assertEqual(self.site.request("GET", "/auth").body, b"<html>")
        self.assertEqual(self.site.request("GET", "/auth?join=x").body, b"<html>")
        self.assert_error(self.site.request("GET", "/auth/"), 404)
        self.assert_error(self.site.request("GET", "/auth/login"), 405)


class OpenApiTests(SynchronousTestCase):
    """One document in two spellings."""

    def test_served_document_is_the_one_in_docs(self) -> None:
        """After a change of docs/openapi.yaml, openapi.json has to be written again from it."""
        with (DOCS / "openapi.yaml").open(encoding="utf-8") as file:
            self.assertEqual(load_openapi(), yaml.safe_load(file))

    def test_document_has_every_route_and_no_other(self) -> None:
        """With its methods."""
        app: Klein = AuthApi.app
        routes = {
            ("/auth" + rule.rule.translate(str.maketrans("<>", "{}")), method.lower())
            for rule in app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD"}
        }
        paths = load_openapi()["paths"].items()
        described = {(path, method) for path, methods in paths if path.startswith("/auth/") for method in methods}
        self.assertEqual(described, routes)

    def test_protocol_lists_every_call(self) -> None:
        """docs/protocol.md has each of the OpenAPI document but those of the console, and no other."""
        section = (DOCS / "protocol.md").read_text("utf-8").partition("\n## Auth API\n")[2].partition("\n- ")[0]
        listed = {
            (method, path)
            for methods, path in re.findall(r"^\| ([A-Z, ]+) (/\S+) \|", section, re.MULTILINE)
            for method in methods.split(", ")
        }
        described = {
            (method.upper(), path.replace("{session_id}", "{id}"))
            for path, methods in load_openapi()["paths"].items()
            for method in methods
            if path.startswith(("/auth/", "/files")) and method not in ("parameters", "head")
        }
        self.assertEqual(listed - {("HEAD", "/files/{id}")}, described)
