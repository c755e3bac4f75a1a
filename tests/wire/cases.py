"""Messages with their exact bytes, and an assertion for both directions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.wire import messages as m
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.constants import Phase, Signal

US = 1_700_000_000_123_456
"""A time in µs; ``00 06 0A 24 18 20 22 40`` on the wire."""

_US = b"\x00\x06\x0a\x24\x18\x20\x22\x40"
_HALF = b"\x07\x3f\xe0\x00\x00\x00\x00\x00\x00"

CASES: dict[str, tuple[m.Message, bytes]] = {
    "hello": (m.Hello(1, 0xE0, "n", "tok"), b"\x01\x01\xe0\x00\x01n\x00\x03tok"),
    "hello without token": (m.Hello(1, 0, ""), b"\x01\x01\x00\x00\x00\x00\x00"),
    "welcome": (m.Welcome(1, 0xF8, US, "s", "relay"), b"\x02\x01\xf8" + _US + b"\x00\x01s\x00\x05relay\x00\x00"),
    "announce nothing": (m.Announce("/n"), b"\x03\x00\x02/n\x00\x00"),
    "announce": (
        m.Announce(
            "",
            (
                m.SignalDefinition("/a", Signal.PARAM, "f32", "rw", "dB", (0.5, 0.5), b"\x01\x01", "level"),
                m.SignalDefinition("/b", Signal.TIMELINE),
                m.SignalDefinition("/c", Signal.EVENT, default=b"\x00"),
            ),
        ),
        b"\x03\x00\x00\x00\x03"
        b"\x00\x02/a\x00\x07\x00\x03f32\x00\x02rw\x0f\x00\x02dB" + _HALF[1:] + _HALF[1:] + b"\x01\x01\x00\x05level"
        b"\x00\x02/b\x04\x00"
        b"\x00\x02/c\x01\x04\x04\x00",
    ),
    "subscribe": (m.Subscribe(1, "/a/**"), b"\x10\x00\x00\x00\x01\x00\x05/a/**\xff\x00"),
    "subscribe filtered": (
        m.Subscribe(2, "/a", 5, 30, 0.5),
        b"\x10\x00\x00\x00\x02\x00\x02/a\x05\x03\x00\x00\x00\x1e" + _HALF[1:],
    ),
    "unsubscribe": (m.Unsubscribe(0xFFFFFFFF), b"\x11\xff\xff\xff\xff"),
    "publish nothing": (m.Publish("/e"), b"\x20\x20\x00\x02/e\x00"),
    "publish null": (m.Publish("/e", value=b"\x00"), b"\x20\x20\x00\x02/e\x01\x00"),
    "publish stream": (
        m.Publish("/s", Signal.STREAM, value=_HALF, timestamp_us=US),
        b"\x20\x50\x00\x02/s\x01" + _HALF + _US,
    ),
    "publish samples": (
        m.Publish("/s", Signal.STREAM, samples=_HALF[1:] * 2, timestamp_us=US, rate=60),
        b"\x20\x50\x00\x02/s\x02\x00\x02" + _HALF[1:] * 2 + _US + b"\x00\x00\x00\x3c",
    ),
    "publish gesture": (
        m.Publish("/g", Signal.GESTURE, Phase.CANCEL, b"\x08\x00\x01x", None, US, 7, 8),
        b"\x20\x7b\x00\x02/g\x01\x08\x00\x01x" + _US + b"\x00\x00\x00\x07\x00\x00\x00\x08",
    ),
    "publish timeline": (m.Publish("/t", Signal.TIMELINE), b"\x20\x80\x00\x02/t\x00"),
    "set null": (m.Set("/a", b"\x00"), b"\x21\x00\x00\x02/a"),
    "set true": (m.Set("/a", b"\x01\x01"), b"\x21\x01\x00\x02/a\x01"),
    "set float": (m.Set("/a", _HALF), b"\x21\x07\x00\x02/a" + _HALF[1:]),
    "set string": (m.Set("/é", b"\x08\x00\x02\xc3\xa9"), b"\x21\x08\x00\x03/\xc3\xa9\x00\x02\xc3\xa9"),
    "set with all": (
        m.Set("/a", _HALF, 42, True, True, 0x8000003C),
        b"\x21\xf7\x00\x02/a" + _HALF[1:] + b"\x00\x00\x00\x00\x00\x00\x00\x2a\x80\x00\x00\x3c",
    ),
    "set with ttl": (m.Set("/a", b"\x00", ttl=0), b"\x21\x10\x00\x02/a\x00\x00\x00\x00"),
    "get": (m.Get("/a/b"), b"\x22\x00\x04/a/b"),
    "snapshot of nothing": (m.Snapshot(), b"\x23\x00\x00"),
    "snapshot": (
        m.Snapshot((m.SnapshotParam("/a", _HALF, 1), m.SnapshotParam("/b", b"\x00", 2, "w", US))),
        b"\x23\x00\x02\x00\x02/a" + _HALF + b"\x00\x00\x00\x00\x00\x00\x00\x01\x00"
        b"\x00\x02/b\x00\x00\x00\x00\x00\x00\x00\x00\x02\x03\x00\x01w" + _US,
    ),
    "replay": (m.Replay("/a", US, US, 100, 3), b"\x24\xe0\x00\x02/a" + _US + _US + b"\x00\x00\x00\x64\x03"),
    "replay all": (m.Replay("/a"), b"\x24\x00\x00\x02/a\xff"),
    "bundle of nothing": (m.Bundle(), b"\x30\x00\x00\x00"),
    "bundle": (
        m.Bundle((m.Set("/a", b"\x00"), m.Publish("/e")), US),
        b"\x30\x80\x00\x02" + _US + b"\x00\x06\x21\x00\x00\x02/a\x00\x07\x20\x20\x00\x02/e\x00",
    ),
    "sync": (m.Sync(US), b"\x40\x00" + _US),
    "sync answered": (m.Sync(US, US, US), b"\x40\x03" + _US * 3),
    "sync half answered": (m.Sync(US, None, US), b"\x40\x02" + _US * 2),
    "ping": (m.Ping(), b"\x41"),
    "pong": (m.Pong(), b"\x42"),
    "ack": (m.Ack(), b"\x50\x00"),
    "ack of a set": (m.Ack("/a", 42), b"\x50\x03\x00\x02/a\x00\x00\x00\x00\x00\x00\x00\x2a"),
    "ack unlocked": (m.Ack(locked=False), b"\x50\x04\x00"),
    "ack with all": (
        m.Ack("/a", 42, True, "h", 7),
        b"\x50\x1f\x00\x02/a\x00\x00\x00\x00\x00\x00\x00\x2a\x01\x00\x01h\x00\x00\x00\x07",
    ),
    "error": (m.Error(301, "no"), b"\x51\x01\x2d\x00\x02no\x00"),
    "error with all": (m.Error(301, "no", "/a", 7), b"\x51\x01\x2d\x00\x02no\x03\x00\x02/a\x00\x00\x00\x07"),
    "query": (m.Query("/a/**"), b"\x60\x00\x05/a/**"),
    "result of nothing": (m.Result(), b"\x61\x00\x00"),
    "result": (
        m.Result((m.SignalDefinition("/a", Signal.PARAM, "f32", "rw"), m.SignalDefinition("/b", Signal.EVENT))),
        b"\x61\x00\x02\x00\x02/a\x00\x03\x00\x03f32\x00\x02rw\x00\x02/b\x01\x00",
    ),
}
"""By what they show: a message and its payload."""


class WireTestCase(SynchronousTestCase):
    """A test with assertions about bytes and messages."""

    def assertWire(self, message: m.Message, payload: bytes) -> None:  # noqa: N802 - as trial names assertions
        """Asserts that a message encodes to these bytes, and that these bytes decode to it."""
        self.assertEqual(encode(message).hex(" "), payload.hex(" "))
        self.assertEqual(decode(payload), message)
        self.assertIs(type(decode(payload)), type(message))
