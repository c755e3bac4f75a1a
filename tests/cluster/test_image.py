"""The picture of a relay that another one begins with."""

from __future__ import annotations

import zlib

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.exchange.ledger import Ledger
from clasp_relay.cluster.image import Image, capture, decode_image, encode_image, install, is_empty
from clasp_relay.errors import DecodeError
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Announce, Bundle, Set, SignalDefinition
from tests.cluster.world import Cluster
from tests.core.world import START_US, World, value


def pieces_of(image: Image) -> list[bytes]:
    """Returns an image as it goes over the bus."""
    return [piece for piece in encode_image(image) if piece is not None]


class ImageTests(SynchronousTestCase):
    """What goes over the bus is what was there."""

    def setUp(self) -> None:
        """Makes a relay with some of everything."""
        cluster = Cluster()
        (self.member,) = cluster.started("one")
        client = self.member.join()
        for number in range(1_200):
            client.send(Set(f"/p/{number}", value(number), ttl=60 if number % 2 else None))
        client.send(Set("/p/1", value(None)))
        client.send(Set("/locked", value(1), lock=True))
        client.send(Announce("/dev", (SignalDefinition("/dev/knob", Signal.PARAM, "f64"),)))
        client.send(Bundle((Set("/later", value(1)),), START_US + 60_000_000), 1)
        cluster.turn()
        cluster.advance(1)
        self.session_id = client.session.id

    def image(self, *, with_state: bool) -> Image:
        """Captures it."""
        return capture(self.member.relay, self.member.ledger, 17, with_state=with_state)

    def test_it_comes_over_the_bus_as_it_is(self) -> None:
        """With the state, or without."""
        for with_state in (True, False):
            image = self.image(with_state=with_state)
            self.assertEqual(decode_image(pieces_of(image)), image)
        self.assertIn(None, list(encode_image(self.image(with_state=True))))

    def test_a_relay_that_installs_it_has_the_same(self) -> None:
        """Params, tombstones, life times, locks, signals, waiting bundles, sessions."""
        image = decode_image(pieces_of(self.image(with_state=True)))
        world, ledger = World(), Ledger()
        self.assertTrue(is_empty(world.relay.params))
        install(image, world.relay, ledger)
        self.assertFalse(is_empty(world.relay.params))
        ours = self.member.relay
        self.assertEqual(world.relay.params.image(), ours.params.image())
        self.assertEqual(world.relay.params.locks.all(), ours.params.locks.all())
        self.assertEqual(world.relay.signals.all(), ours.signals.all())
        self.assertEqual(world.relay.schedule.image(), ours.schedule.image())
        self.assertEqual(list(ledger.sessions), [self.session_id])
        self.assertEqual((ledger.seq, ledger.digest), (self.member.ledger.seq, self.member.ledger.digest))

    def test_pieces_that_are_no_image_are_refused(self) -> None:
        """A part that is missing, another version, records that do not belong there."""
        good = msgpack.unpackb(zlib.decompress(pieces_of(self.image(with_state=False))[0]), use_list=False)
        (kind, version, head, has_state), *rest = good
        for records in (
            rest,
            [(kind, version + 1, head, has_state), *rest],
            [(kind, version, head[:-1], has_state), *rest],
            [good[0], (4, b"param")],
            [good[0], (9, b"unknown")],
            [(kind, version, head, True), (4, b"no change")],
        ):
            with self.subTest(records=records):
                self.assertRaises(DecodeError, decode_image, [zlib.compress(msgpack.packb(records))])
        self.assertRaises(DecodeError, decode_image, [b"nothing"])
        self.assertRaises(DecodeError, decode_image, [])
