"""Sessions of HTTP clients: one for a token, one for each request without one, and an answer for every message."""

import gc
import weakref
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.permissions import REVOKED
from clasp_relay.access.tokens import digest_of
from clasp_relay.core.ports import Codec, Outbox
from clasp_relay.core.records import Param
from clasp_relay.core.relay import RelayOptions
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.work import TURN_US
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, RequestError
from clasp_relay.http import api_sessions
from clasp_relay.http.api_sessions import IDLE_S, LOOK_US, LOOKED_EVERY_S, ApiSessions, wait_until
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Bundle, Get, Message, Publish, Set, Subscribe
from tests.access.test_permissions import AuthWorld
from tests.core.guard import Guard
from tests.core.world import SlowLog, World, heard, value

POLICY = {"scopes": ["read:/**", "write:/a/**"], "anonymous": {"scopes": ["read:/a/**", "write:/a/*"]}}


class SessionTests(SynchronousTestCase):
    """Tokens and their sessions."""

    def setUp(self) -> None:
        """A relay with a policy."""
        self.world = AuthWorld(POLICY, RelayOptions(message_rate=(1, 5)))
        self.api = ApiSessions(self.world.relay)
        self.addCleanup(self.api.close)

    def ask(self, token: str | None, message: Message) -> dict[str, Any]:
        """Returns the answer to a message."""
        return self.successResultOf(self.api.ask(token, "192.0.2.1", message))

    def test_token_has_one_session_that_ends_when_nothing_is_asked(self) -> None:
        """It writes as its subject, and others hear of it."""
        reader = self.world.join("reader")
        reader.ask(Subscribe(1, "/a/**"))
        self.assertEqual(self.ask("owner", Set("/a/x", value(1))), {"revision": 1})
        self.assertEqual(self.ask("owner", Set("/a/x", value(2))), {"revision": 2})
        self.assertEqual(heard(reader.hear()), [("/a/x", 1), ("/a/x", 2)])
        self.assertEqual(self.ask("owner", Get("/a/x"))["value"], 2)
        self.assertEqual(len(self.world.relay.sessions.of_subject("owner")), 1)
        self.world.advance(IDLE_S - 1)
        self.ask("owner", Get("/a/x"))
        self.world.advance(IDLE_S - 1)
        self.assertEqual(len(self.world.relay.sessions.of_subject("owner")), 1)
        self.world.advance(2)
        self.assertEqual(self.world.relay.sessions.of_subject("owner"), [])

    def test_session_of_a_token_that_ends_is_gone_and_the_token_refused(self) -> None:
        """As every other session of it."""
        self.ask("owner", Get("/a/x"))
        (session,) = self.world.relay.sessions.of_subject("owner")
        self.world.tokens.on_end(lambda record, _: self.end(record.subject, record.digest))
        self.world.tokens.revoke([session.identity.token])
        self.assertFalse(session.is_live)
        self.assertEqual(self.ask("owner", Get("/a/x"))["code"], ErrorCode.UNAUTHENTICATED)

    def end(self, subject: str, digest: bytes) -> None:
        """Ends the sessions of a token, as the service does."""
        self.world.relay.end_token(subject, digest, REVOKED)

    def test_request_without_a_token_has_a_session_of_its_own(self) -> None:
        """It is gone with the answer; the policy says what it may do."""
        self.assertEqual(self.ask(None, Set("/a/x", value(1))), {"revision": 1})
        param = self.world.relay.params.get("/a/x")
        assert param is not None
        self.assertTrue(param.subject.startswith("clasp.anon."))
        self.assertEqual(len(self.world.relay.sessions), 0)
        self.assertEqual(self.ask(None, Set("/b", value(1)))["code"], ErrorCode.SCOPE)
        self.assertEqual(self.ask("nonsense", Get("/a/x"))["code"], ErrorCode.UNAUTHENTICATED)

    def test_session_that_ended_is_kept_by_nothing(self) -> None:
        """Not by a reference cycle either, which the garbage collector might not look at any more."""
        began: list[weakref.ref[Outbox]] = []
        connect = self.world.relay.connect

        def noted(outbox: Outbox, address: str, codec: Codec) -> Session:
            began.append(weakref.ref(outbox))
            return connect(outbox, address, codec)

        self.patch(self.world.relay, "connect", noted)
        gc.disable()
        self.addCleanup(gc.enable)
        for token in ("owner", "reader", None):
            self.ask(token, Get("/a/x"))
        self.world.relay.end_token("reader", digest_of("reader"), REVOKED)
        self.world.advance(IDLE_S + 1)
        self.world.turn()
        self.assertEqual([outbox() for outbox in began], [None] * 3)

    def test_bundle_for_later_answers_no_request_when_it_fails(self) -> None:
        """Its sender has its own session, which is gone; without a token nobody could be asked then."""
        later = Bundle((Set("/a/x", value(1)),), self.world.clock.now_us() + 1_000_000)
        self.assertEqual(self.ask("owner", later), {"revision": None})
        self.assertEqual(len(self.world.relay.sessions.of_subject("owner")), 1)
        self.world.join("other").ask(Set("/a/x", value(2), lock=True))
        self.world.clock.clock.advance(2)
        self.assertEqual(self.ask("owner", Get("/a/x"))["value"], 2)
        with self.assertRaises(RequestError) as caught:
            self.api.ask(None, "192.0.2.1", Bundle(later.messages, self.world.clock.now_us() + 1_000_000))
        self.assertEqual(caught.exception.code, ErrorCode.UNAUTHENTICATED)
        self.assertEqual(len(self.world.relay.sessions.of_subject("owner")), 1)

    def test_message_limit_holds_for_a_token_and_for_an_address_without_one(self) -> None:
        """A refused message has its own error, and the next answer is the next request's."""
        for token in ("owner", None):
            with self.subTest(token=token):
                for _ in range(5):
                    self.ask(token, Get("/a/x"))
                with self.assertRaises(RequestError) as caught:
                    self.api.ask(token, "192.0.2.1", Get("/a/x"))
                self.assertEqual(caught.exception.code, ErrorCode.LIMIT)
                self.world.advance(1.5)
                self.assertEqual(self.ask(token, Get("/a/x"))["address"], "/a/x")
        self.assertEqual(self.world.relay.counts.limited, 2)
        many = Bundle(tuple(Publish("/a/x") for _ in range(6)))
        with self.assertRaises(RequestError) as caught:
            self.api.ask("reader", "192.0.2.1", many)
        self.assertIn("counts as 6 messages, at most 5 pass at once", caught.exception.message)

    def test_request_that_costs_more_to_read_than_the_burst_passes(self) -> None:
        """Once nothing else does: a retry must not be refused for ever."""
        for token in ("owner", None):
            with self.subTest(token=token):
                for _ in range(2):
                    self.api.pay(token, "192.0.2.1", 15)
                    with self.assertRaises(RequestError) as caught:
                        self.api.pay(token, "192.0.2.1", 15)
                    self.assertEqual(caught.exception.message, "too many messages; try again in a second")
                    self.assertEqual(self.ask(token, Set("/a/x", value(1))).keys(), {"revision"})
                    self.world.advance(10)

    def test_number_of_sessions_and_of_remembered_limits_is_bounded(self) -> None:
        """A crowd of tokens is told to come back."""
        self.patch(api_sessions, "MAX_HTTP_SESSIONS", 1)
        self.ask("owner", Get("/a/x"))
        with self.assertRaises(RequestError) as caught:
            self.api.ask("reader", "192.0.2.1", Get("/a/x"))
        self.assertEqual(caught.exception.code, ErrorCode.OVERLOADED)
        self.world.relay.hooks.origin_of = lambda peer: peer
        for number in range(3):
            self.successResultOf(self.api.ask(None, f"192.0.2.{number}", Get("/a/x")))
        self.assertEqual(len(self.api._limiters), 1)


class ConditionTests(SynchronousTestCase):
    """What a request waits for."""

    def test_condition_is_kept_by_nothing_once_it_holds(self) -> None:
        """Or a second later; the garbage collector might not look at a reference cycle any more."""
        gc.disable()
        self.addCleanup(gc.enable)
        for holds in (True, False):
            with self.subTest(holds=holds):
                world = World()

                def condition(holds: bool = holds) -> bool:
                    return holds

                waits = wait_until(world.clock, condition)
                self.assertNoResult(waits)
                there: list[weakref.ref[Any]] = [weakref.ref(condition), weakref.ref(waits)]
                del condition
                for _ in range(1 if holds else 21):
                    world.advance(LOOKED_EVERY_S)
                self.successResultOf(waits)
                del waits
                self.assertEqual([ref() for ref in there], [None, None])


class ClosedTests(SynchronousTestCase):
    """A relay that lets nobody in for a while, such as one that has not caught up with its cluster."""

    def test_nothing_is_answered_meanwhile(self) -> None:
        """Also not in a session that is there already."""
        world = AuthWorld(POLICY)
        api = ApiSessions(world.relay)
        self.addCleanup(api.close)
        self.successResultOf(api.ask("owner", "192.0.2.1", Set("/a/x", value(1))))
        world.relay.refuses = Disconnect(CloseCode.TRY_AGAIN_LATER, "not now", ErrorCode.OVERLOADED)
        for token in ("owner", None):
            for ask in (
                lambda given: api.ask(given, "192.0.2.1", Get("/a/x")),
                lambda given: api.find(given, "192.0.2.1", Pattern.parse("/a/*"), 10, ""),
            ):
                with self.subTest(token=token):
                    try:
                        answer = self.successResultOf(ask(token))
                    except RequestError as error:
                        answer = {"code": error.code, "error": error.message}
                    self.assertEqual(answer, {"code": ErrorCode.OVERLOADED, "error": "not now"})
        self.assertEqual(len(world.relay.sessions), 1)


class WaitingTests(SynchronousTestCase):
    """Answers to writes wait until the change is recorded."""

    def setUp(self) -> None:
        """A relay whose log takes its time."""
        self.log = SlowLog()
        self.world = World(permissions=Guard(), log=self.log)
        self.api = ApiSessions(self.world.relay)
        self.addCleanup(self.api.close)

    def ask(self, message: Message) -> Deferred[dict[str, Any]]:
        """Sends a message."""
        return self.api.ask("ann", "192.0.2.1", message)

    def test_answers_come_when_the_change_is_recorded_and_in_their_order(self) -> None:
        """A GET is answered at once by what is set now; a refusal waits behind the writes before it."""
        first, second = self.ask(Set("/a", value(1))), self.ask(Set("/a", value(2)))
        refused = self.ask(Set("/a", value(3), revision=9))
        self.assertEqual(self.successResultOf(self.ask(Get("/a")))["value"], 2)
        for waiting in (first, second, refused):
            self.assertNoResult(waiting)
        self.log.release(1)
        self.assertEqual(self.successResultOf(first), {"revision": 1})
        self.assertNoResult(second)
        self.log.release()
        self.assertEqual(self.successResultOf(second), {"revision": 2})
        self.assertEqual(self.successResultOf(refused)["code"], ErrorCode.CONFLICT)

    def test_request_that_waits_at_the_end_is_told_so(self) -> None:
        """It is not left without an answer."""
        waiting = self.ask(Set("/a", value(1)))
        self.api.close()
        told = self.successResultOf(waiting)
        self.assertEqual((told["code"], told["error"]), (ErrorCode.OVERLOADED, "the relay is stopping"))

    def test_relay_that_cannot_go_on_does_not_call_the_token_bad(self) -> None:
        """A client that was told so would sign out; it is told to try again."""
        for close_code, code in (
            (CloseCode.TRY_AGAIN_LATER, ErrorCode.OVERLOADED),
            (CloseCode.GOING_AWAY, ErrorCode.OVERLOADED),
            (CloseCode.INTERNAL, ErrorCode.OVERLOADED),
            (CloseCode.POLICY_VIOLATION, ErrorCode.TOKEN_EXPIRED),
        ):
            with self.subTest(close_code=close_code):
                waiting = self.ask(Set("/a", value(1)))
                (session,) = self.world.relay.sessions.of_subject("ann")
                self.world.relay.end(session, Disconnect(close_code, "it ended"))
                self.assertEqual(self.successResultOf(waiting), {"code": int(code), "error": "it ended"})

    def test_session_does_not_end_as_idle_while_an_answer_waits(self) -> None:
        """The disk may be slow."""
        waiting = self.ask(Set("/a", value(1)))
        self.world.advance(2 * IDLE_S)
        self.assertNoResult(waiting)
        self.log.release()
        self.assertEqual(self.successResultOf(waiting), {"revision": 1})


class ListTests(SynchronousTestCase):
    """Lists of many params."""

    def setUp(self) -> None:
        """A relay with more params than are looked at in one piece."""
        self.world = AuthWorld(POLICY)
        self.api = ApiSessions(self.world.relay)
        self.addCleanup(self.api.close)
        owner = self.world.join("owner")
        self.count = 3 * api_sessions.LOOKED_AT_ONCE
        for number in range(self.count):
            owner.send(Set(f"/a/{number:04}", value(number)))

    def find(self, token: str | None, limit: int = 10, after: str = "") -> Deferred[dict[str, Any]]:
        """Asks for a list."""
        return self.api.find(token, "192.0.2.1", Pattern.parse("/a/**"), limit, after)

    def test_many_lists_share_a_turn(self) -> None:
        """However many clients ask at once, and each gets what it asked for."""
        looked_at: list[int] = []
        show = self.world.relay.visibility.show

        def noted(params: list[Param], session: Session, pattern: Pattern | None) -> list[Param]:
            looked_at.append(len(params))
            return show(params, session, pattern)

        self.patch(self.world.relay.visibility, "show", noted)
        waiting = [self.find(None, after=f"/a/{number:04}") for number in range(40)]
        in_turns: list[int] = []
        while self.world.relay.work:
            looked_at.clear()
            self.world.one_turn()
            in_turns.append(sum(looked_at))
        self.assertLessEqual(max(in_turns) * LOOK_US, TURN_US + api_sessions.LOOKED_AT_ONCE * LOOK_US)
        for number, each in enumerate(waiting):
            told = self.successResultOf(each)
            first = f"/a/{number + 1:04}"
            self.assertEqual((told["params"][0]["address"], len(told["params"])), (first, 10))
        self.assertEqual(len(self.world.relay.sessions), 1, "those of the requests are gone")

    def test_list_of_a_token_that_ends_ends_with_it(self) -> None:
        """What it found before is not told."""
        waiting = [self.find("reader") for _ in range(4)]
        (session,) = self.world.relay.sessions.of_subject("reader")
        self.world.relay.end_token("reader", session.identity.token, REVOKED)
        self.world.settle()
        for each in waiting[2:]:
            self.assertEqual(self.successResultOf(each)["code"], ErrorCode.TOKEN_EXPIRED)

    def test_fault_fails_one_list(self) -> None:
        """The others go on."""
        show = self.world.relay.visibility.show

        def failing(params: list[Param], session: Session, pattern: Pattern | None) -> list[Param]:
            if session.identity.subject == "reader":
                raise ZeroDivisionError
            return show(params, session, pattern)

        self.patch(self.world.relay.visibility, "show", failing)
        one, other = self.find("reader"), self.find("other")
        self.world.settle()
        self.failureResultOf(one, ZeroDivisionError)
        self.assertEqual(len(self.successResultOf(other)["params"]), 10)
        self.assertEqual(self.world.faults, [])


MANY = 160
"""Members of a bundle that takes several turns."""


class LongTests(SynchronousTestCase):
    """What is asked while a long bundle of the same token is at work."""

    def setUp(self) -> None:
        """A relay, and a bundle at work."""
        self.world = AuthWorld(POLICY)
        self.api = ApiSessions(self.world.relay)
        self.addCleanup(self.api.close)
        for name in ("one", "two"):
            self.successResultOf(self.ask(Set(f"/a/{name}", value(name))))
        self.bundle = self.ask(Bundle(tuple(Set(f"/a/b/{number}", value(0)) for number in range(MANY))))
        self.assertNoResult(self.bundle)

    def ask(self, message: Message) -> Deferred[dict[str, Any]]:
        """Sends a message."""
        return self.api.ask("owner", "192.0.2.1", message)

    def test_each_request_has_the_answer_to_what_it_asked(self) -> None:
        """GETs, whose answers wait for nothing, and writes in between, also a second long one."""
        asked: list[Message] = [
            Get("/a/one"),
            Set("/a/three", value(3)),
            Bundle(self.members("/a/c")),
            Get("/a/two"),
            Get("/a/b/0"),
        ]
        waiting = [self.ask(message) for message in asked]
        self.settle()
        self.assertEqual(self.successResultOf(self.bundle), {"revision": 1})
        one, three, bundle, two, first = map(self.successResultOf, waiting)
        self.assertEqual((one["value"], three, bundle), ("one", {"revision": 1}, {"revision": 1}))
        self.assertEqual((two["value"], first["value"]), ("two", 0))
        self.assertEqual(self.successResultOf(self.ask(Get("/a/one")))["value"], "one")

    def test_what_waits_is_answered_when_the_session_ends(self) -> None:
        """With the token, or with the relay."""
        waiting = self.ask(Get("/a/one"))
        (session,) = self.world.relay.sessions.of_subject("owner")
        self.world.relay.end_token("owner", session.identity.token, REVOKED)
        self.settle()
        for request in (self.bundle, waiting):
            self.assertEqual(self.successResultOf(request)["code"], ErrorCode.TOKEN_EXPIRED)
        bundle = self.ask(Bundle(self.members("/a/b")))
        waiting = self.ask(Get("/a/one"))
        self.world.advance(IDLE_S)
        waiting_too = self.ask(Bundle(self.members("/a/b")))
        self.api.close()
        self.settle()
        self.assertEqual(self.successResultOf(waiting)["value"], "one")
        self.assertEqual(self.successResultOf(bundle), {"revision": 1})
        self.assertEqual(self.successResultOf(waiting_too)["code"], ErrorCode.OVERLOADED)

    def members(self, start: str) -> tuple[Set, ...]:
        """Returns SETs of a long bundle."""
        return tuple(Set(f"{start}/{number}", value(1)) for number in range(MANY))

    def settle(self) -> None:
        """Lets the loop turn until nothing is at work."""
        self.world.settle()
        self.world.turn()
        self.assertEqual(self.world.faults, [])
