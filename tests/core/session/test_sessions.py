"""Tests of clasp_relay.core.session.sessions."""

from __future__ import annotations

import typing

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.session.sessions import ALLOWED, ANYBODY, Session, SessionState, SessionTable, check_legal
from clasp_relay.errors import CloseCode, ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.frame import encode_frame
from tests.core.world import World, codes, memory_session, value


class SessionTests(SynchronousTestCase):
    def test_session_is_live_between_hello_and_its_end(self) -> None:
        """Before HELLO its identity is that of nobody."""
        world = World()
        client = world.connect()
        self.assertEqual((client.session.state, client.session.is_live), (SessionState.NEW, False))
        self.assertIs(client.session.identity, ANYBODY)
        client = world.join()
        self.assertEqual((client.session.state, client.session.is_live), (SessionState.LIVE, True))
        self.assertEqual((client.session.name, client.session.features), ("test", 0xE0))
        client.leave()
        self.assertEqual((client.session.state, client.session.is_live), (SessionState.CLOSED, False))


SAMPLES: tuple[m.Message, ...] = (
    m.Hello(1, 0, "again"),
    m.Welcome(1, 0, 0, "id", "name"),
    m.Announce("/n"),
    m.Subscribe(1, "/a"),
    m.Unsubscribe(1),
    m.Publish("/a", Signal.EVENT),
    m.Set("/a", value(1)),
    m.Get("/a"),
    m.Snapshot(),
    m.Replay("/a"),
    m.Bundle(),
    m.Sync(1),
    m.Ping(),
    m.Pong(),
    m.Ack(),
    m.Error(500, "no"),
    m.Query("/a"),
    m.Result(),
)


"""One of every type."""


FROM_THE_RELAY = frozenset({m.Welcome, m.Snapshot, m.Ack, m.Error, m.Result})


class TableTests(SynchronousTestCase):
    def test_every_type_is_decided(self) -> None:
        """Each message is handled, or refused as one that only the relay sends."""
        every = set(typing.get_args(m.Message))
        self.assertEqual({type(sample) for sample in SAMPLES}, every)
        self.assertEqual(set(HANDLERS) | FROM_THE_RELAY, every)
        self.assertEqual(set(HANDLERS), ALLOWED[SessionState.NEW] | ALLOWED[SessionState.LIVE])
        self.assertFalse(set(HANDLERS) & FROM_THE_RELAY)
        self.assertEqual(set(ALLOWED), set(SessionState))

    def test_refusal_names_message_and_reason(self) -> None:
        """For each message that is not legal in a state."""
        for state in SessionState:
            for sample in SAMPLES:
                with self.subTest(state=state, message=type(sample).__name__):
                    if type(sample) in ALLOWED[state]:
                        check_legal(state, sample)
                        continue
                    error = self.assertRaises(RequestError, check_legal, state, sample)
                    self.assertEqual(error.code, ErrorCode.MESSAGE)
                    if state is SessionState.NEW:
                        self.assertIn("first message must be HELLO", error.message)
                        self.assertIn(type(sample).__name__.upper(), error.message)

    def test_reasons_are_in_words(self) -> None:
        """The text tells a developer what is wrong."""
        for sample, expected in (
            (m.Hello(1, 0, "x"), "HELLO before"),
            (m.Ack(), "ACK is a message that only the relay sends"),
        ):
            with self.subTest(message=sample):
                self.assertIn(expected, self.assertRaises(RequestError, check_legal, SessionState.LIVE, sample).message)


class LegalityOfSessionTests(SynchronousTestCase):
    """The table, in a relay."""

    def test_first_message_that_is_no_hello_ends_the_session(self) -> None:
        """With an ERROR, then a close with the reason."""
        for sample in SAMPLES[1:]:
            with self.subTest(message=type(sample).__name__):
                client = World().connect()
                self.assertEqual(codes(client.ask(sample)), [ErrorCode.MESSAGE])
                assert client.outbox.closed is not None
                self.assertEqual(client.outbox.closed[0], CloseCode.POLICY_VIOLATION)
                self.assertIn("HELLO", client.outbox.closed[1])
                client.send(m.Hello(1, 0, "late"))
                self.assertEqual(client.hear(), [])

    def test_illegal_message_leaves_the_session_alive(self) -> None:
        """Any number of them: they are valid CLASP."""
        world = World()
        client = world.join()
        for sample in SAMPLES:
            if type(sample) not in ALLOWED[SessionState.LIVE]:
                for _ in range(150):
                    self.assertEqual(codes(client.ask(sample)), [ErrorCode.MESSAGE])
        self.assertIsNone(client.outbox.closed)
        self.assertEqual(client.ask(m.Ping()), [m.Pong()])

    def test_federation_sync_is_refused_by_its_code(self) -> None:
        """With one ERROR each, in both encodings, whatever follows the code; the session goes on."""
        client = World().join()
        legacy = msgpack.packb({"type": "FEDERATION_SYNC", "op": "RequestSync"})
        for payload in (b"\x04", b"\x04\x02\x00\x00\x00\x00\x00", legacy):
            with self.subTest(payload=payload.hex()):
                for _ in range(150):
                    client.send_bytes(encode_frame(payload))
                    expected = m.Error(ErrorCode.MESSAGE, "FEDERATION_SYNC is not offered by this relay")
                    self.assertEqual(client.hear(), [expected])
        self.assertIsNone(client.outbox.closed)

    def test_second_hello_changes_nothing(self) -> None:
        """Neither the name of the session nor what belongs to it; and no session is added."""
        world = World()
        client = world.join()
        client.send(m.Subscribe(1, "/a"))
        before = (client.session.name, client.session.identity, dict(client.session.subscriptions))
        self.assertEqual(codes(client.ask(m.Hello(1, 0, "other", "token"))), [ErrorCode.MESSAGE])
        self.assertEqual((client.session.name, client.session.identity, client.session.subscriptions), before)
        self.assertEqual(list(world.relay.sessions._by_id), [client.session.id])


def session(session_id: str, token: bytes = b"") -> Session:
    """Makes a session."""
    return memory_session(session_id, "somebody" if token else "", token)


class SessionTableTests(SynchronousTestCase):
    def test_sessions_are_found_by_id_and_by_token(self) -> None:
        """Sessions without a token only by id."""
        table = SessionTable()
        one, two, open_one = session("1", b"t"), session("2", b"t"), session("3")
        for each in (one, two, open_one):
            table.add(each)
        self.assertEqual((len(table), "2" in table, "4" in table), (3, True, False))
        self.assertIs(table.get("3"), open_one)
        self.assertIsNone(table.get("4"))
        self.assertEqual(table.of_token("somebody", b"t"), [one, two])
        self.assertEqual((table.of_token("", b""), table.of_token("somebody", b"u")), ([], []))
        self.assertEqual(table.of_subject("somebody"), [one, two])
        self.assertEqual((table.of_subject(""), table.of_subject("nobody")), ([], []))

    def test_nothing_is_left_of_a_session_that_ended(self) -> None:
        """A second removal does nothing, nor does that of a session that was never live."""
        table = SessionTable()
        one, two = session("1", b"t"), session("2", b"t")
        table.add(one)
        table.add(two)
        table.discard(session("never", b"t"))
        for _ in range(2):
            table.discard(one)
        self.assertEqual((len(table), table.of_token("somebody", b"t")), (1, [two]))
        self.assertEqual([table.has_subject(one) for one in ("somebody", "nobody", "")], [True, False, False])
        table.discard(two)
        self.assertEqual((len(table), table._by_subject), (0, {}))
        self.assertFalse(table.has_subject("somebody"))
