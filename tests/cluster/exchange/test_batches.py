"""The batches of a cluster's log as bytes."""

from __future__ import annotations

import zlib

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.exchange import batches
from clasp_relay.cluster.exchange.batches import (
    COMPRESSED_FROM_BYTES,
    NO_DIGEST,
    Announced,
    Answered,
    Batch,
    Began,
    Claimed,
    Ended,
    Group,
    HandedOver,
    Item,
    LinkBegan,
    LinkEnded,
    Marked,
    Named,
    NewerVersion,
    Willed,
    decode_batch,
    digest_of,
    encode_batch,
)
from clasp_relay.core.records import Change, ChangeKind, Param
from clasp_relay.errors import DecodeError
from tests.core.world import value

CHANGE = Change(Param("/a", value(1), 3, "session", 17, 60), due_us=99)
ITEMS: tuple[Item, ...] = (
    Claimed("one.1", "one", True, b"base"),
    LinkBegan("two.1", "two"),
    Began("session", "two.1", "ada", b"token", "origin"),
    Group.of((CHANGE, CHANGE._replace(kind=ChangeKind.LOCK_RELEASE))),
    Announced("ada", 17, b"announce"),
    Answered("session", 5, ((3, ("/a", 7, True, "holder")), (4, (None, None, None, None)), (0, b"error"))),
    Ended("session", 1013, "gone"),
    LinkEnded("two.1"),
    HandedOver(),
    Named("session", "ada\0lamp", True, 17),
    Marked(b"mark"),
    Willed("session", b"message", b"more", b"mark"),
)


class BatchTests(SynchronousTestCase):
    """What is encoded is decoded, and nothing else."""

    def test_every_item_comes_back(self) -> None:
        """In its order."""
        batch = Batch(7, digest_of(b"before"), 17, 4, ITEMS)
        self.assertEqual(decode_batch(encode_batch(batch)), batch)

    def test_a_long_batch_is_compressed(self) -> None:
        """NATS carries 1 MiB; a long bundle repeats who wrote it."""
        batch = Batch(1, NO_DIGEST, 0, 0, (Group.of((CHANGE,) * 10_000),))
        payload = encode_batch(batch)
        self.assertLess(len(payload), COMPRESSED_FROM_BYTES)
        self.assertEqual(decode_batch(payload), batch)

    def test_a_newer_version_is_told_apart(self) -> None:
        """The relay is to be updated; the log is not damaged."""
        self.assertRaises(NewerVersion, decode_batch, b"\x02" + encode_batch(Batch(1, NO_DIGEST, 0, 0, ()))[1:])
        self.assertRaises(NewerVersion, decode_batch, b"")
        self.assertRaises(NewerVersion, decode_batch, b"\x00")

    def test_an_older_version_is_read(self) -> None:
        """A relay that was updated goes on with the log that there is."""
        batch = Batch(7, digest_of(b"before"), 17, 4, ITEMS)
        payload = encode_batch(batch)
        self.patch(batches, "VERSION", batches.VERSION + 1)
        self.assertEqual(encode_batch(batch)[0], payload[0] + 1)
        self.assertEqual(decode_batch(payload), batch)

    def test_what_is_no_batch_is_refused(self) -> None:
        """Whatever is wrong with it."""
        good = msgpack.packb((1, NO_DIGEST, 0, 0, []))
        for body in (
            b"\x01",
            b"\x01\x00",
            b"\x01\x00" + good + b"more",
            b"\x01\x01" + good,
            b"\x01\x01" + zlib.compress(good)[:-2],
            b"\x01\x01" + zlib.compress(good) + b"more",
            b"\x01\x00" + msgpack.packb((1, NO_DIGEST, 0, 0)),
            b"\x01\x00" + msgpack.packb((1, "text", 0, 0, [])),
            b"\x01\x00" + msgpack.packb((1, NO_DIGEST, 0, 0, [(77,)])),
            b"\x01\x00" + msgpack.packb((1, NO_DIGEST, 0, 0, [(7, 1, 2, 3, 4)])),
            b"\x01\x00" + msgpack.packb((1, NO_DIGEST, 0, 0, [(3, "s", 1, ["text"])])),
            b"\x01\x00" + msgpack.packb((1, NO_DIGEST, 0, 0, [(3, "s", 1, [(1, ("/a", 1, None))])])),
            b"\x01\x00" + msgpack.packb((1, NO_DIGEST, 0, 0, [(3, "s", 1, [(1, ("/a", "1", None, None))])])),
            b"\x01\x00" + msgpack.packb((1, NO_DIGEST, 0, 0, [(0, b"no change")])),
        ):
            with self.subTest(body=body):
                self.assertRaises(DecodeError, decode_batch, body)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_batch_or_refused(self, data: bytes) -> None:
        """Nothing else is raised."""
        for payload in (data, b"\x01\x00" + data, b"\x01\x01" + data):
            try:
                decode_batch(payload)
            except DecodeError:
                continue
