"""Tests of ``clasp_relay.net.run``."""

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.ports import Audience
from clasp_relay.errors import CloseCode
from clasp_relay.net.backlog import Close, Snapshot
from clasp_relay.net.framing import CODEC, Batch
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.run import Run
from clasp_relay.net.turn import TurnWriter
from tests.net.helpers import FakeConnection, Pipe, datas, keep, payload, server_frames


class RunTests(SynchronousTestCase):
    """What each session gets of it."""

    def setUp(self) -> None:
        """Three sessions, none of which gets anything by itself."""
        reactor = MemoryReactorClock()
        writer = TurnWriter(reactor)
        self.outboxes = [Outbox(FakeConnection(Pipe(reactor)), writer) for _ in range(3)]
        self.run_ = Run(Audience(CODEC, tuple(self.outboxes)))

    def add(self, *messages: bytes) -> None:
        """Adds messages for everybody."""
        for message in messages:
            self.run_.frames.append(keep(message))

    def read(self, item: object) -> list[bytes]:
        """Returns the messages of a piece, which are the same as frames and on the wire."""
        assert isinstance(item, Batch)
        self.assertEqual(datas(server_frames(item.wire)), [payload(frame) for frame in item.frames])
        return datas(server_frames(item.wire))

    def test_whole_run_is_one_piece_for_those_without_edits(self) -> None:
        """All of them, when there is none."""
        self.add(b"a", b"b")
        self.assertEqual(self.read(self.run_.whole()), [b"a", b"b"])
        self.assertEqual(self.run_.others(), tuple(self.outboxes))
        self.run_.edit(self.outboxes[1], None)
        self.assertEqual(self.run_.others(), [self.outboxes[0], self.outboxes[2]])

    def test_own_frames_and_missing_ones_make_no_more_pieces(self) -> None:
        """The sender of the second message has an answer to it in its place."""
        sender = self.outboxes[0]
        self.add(b"a")
        self.run_.edit(sender, None)
        self.add(b"b")
        self.run_.edit(sender, keep(b"own"))
        self.add(b"c", b"d")
        self.run_.edit(sender, None)
        self.add(b"e")
        (item,) = self.run_.edited(self.run_.private[sender])
        self.assertEqual(self.read(item), [b"a", b"own", b"c", b"d"])

    def test_snapshot_and_close_stand_between_pieces(self) -> None:
        """Each at its place; there is no piece without a message."""
        session = self.outboxes[0]
        snapshot, close = Snapshot("key", iter(())), Close(CloseCode.NORMAL, "bye")
        self.run_.edit(session, snapshot)
        self.add(b"a", b"b")
        self.run_.edit(session, close)
        first, second, third = self.run_.edited(self.run_.private[session])
        self.assertIs(first, snapshot)
        self.assertEqual(self.read(second), [b"a", b"b"])
        self.assertIs(third, close)

    def test_who_gets_nothing_gets_no_piece(self) -> None:
        """As the only one who spoke."""
        self.run_.edit(self.outboxes[0], None)
        self.add(b"a")
        self.assertEqual(self.run_.edited(self.run_.private[self.outboxes[0]]), [])
