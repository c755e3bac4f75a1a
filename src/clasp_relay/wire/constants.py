"""The numbers of the wire: message codes, signal kinds, value types, and the limits of a frame.

Source: ``docs/protocol.md``. Every limit that decoding applies is here, with its unit and reason.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

MAGIC = 0x53
"""The first byte of every frame, «S»."""

PROTOCOL_VERSION = 1
"""The version that all known clients send in HELLO, and that WELCOME has."""

MAX_PAYLOAD_BYTES = 0xFFFF
"""The frame's length field is an unsigned 16-bit number."""

MAX_FRAME_BYTES = 12 + MAX_PAYLOAD_BYTES
"""A frame with a timestamp and a full payload: nothing longer can be a CLASP message."""

MAX_ADDRESS_BYTES = 4_096
"""Bytes of an address or a pattern in UTF-8. Real ones have 100; nats-server limits a control line to the same."""

MAX_DEPTH = 32
"""Levels of arrays and maps in a value. Real clients fail between 985 and 5,400 levels, one with its whole process."""

MAX_LEGACY_NODES = 20_000
"""Keys, values, array items and containers of a MessagePack frame, counted while it is decoded.

It bounds what is unpacked before anything is checked. The longest bundle that the Python client can send, 1,900 SETs,
has 13,300."""

MAX_LEGACY_VALUE_NODES = 8_000
"""Limit of these, apart from ``MEMBER_NODES`` of each member of a BUNDLE. Each takes up to 1 µs to turn into a value,
so that one frame stays below 10 ms. The binary format allows more numbers."""

MEMBER_NODES = 16
"""Nodes of the member of a BUNDLE itself; a member with all its fields has 15."""

MAX_VALUE_PARTS = 5_000
"""Strings, bytes, arrays, maps and BOOLs in the values of one binary message, keys not counted. Each takes up to 1 µs
to check, so that one message stays below 10 ms. Numbers and nulls take a tenth of that and are bounded by the frame."""

MAX_JSON_MARKS = 4_000
"""Commas, colons, braces and brackets in a JSON text that becomes a value, those in its strings included. Each means up
to 2 µs of work, so that one text stays below 10 ms."""

JSON_MARKS = b",:{}[]"

MAX_SNAPSHOT_PARAMS = 800
"""Params in one SNAPSHOT. The router that the clients were written for cuts at the same number."""

MAX_DEFINITIONS = 1_000
"""Signal definitions in one ANNOUNCE or RESULT. Each takes 4 to 10 µs to decode, so that one frame stays below 10 ms.

A device announces tens of signals; more than the limit go into several ANNOUNCEs."""

MAX_BUNDLE_MEMBERS = 5_000
"""Members of one BUNDLE. Each takes about 1 µs to decode, so that one frame stays below 10 ms.

The longest bundle that the Python client can send has 1,900 SETs."""

FEDERATION_SYNC_REFUSED = "FEDERATION_SYNC is not offered by this relay"
"""The text of ERROR 101 for FEDERATION_SYNC, which relays of another kind send to each other."""


class MessageCode(IntEnum):
    """The first byte of a binary payload."""

    HELLO = 0x01
    WELCOME = 0x02
    ANNOUNCE = 0x03
    FEDERATION_SYNC = 0x04
    SUBSCRIBE = 0x10
    UNSUBSCRIBE = 0x11
    PUBLISH = 0x20
    SET = 0x21
    GET = 0x22
    SNAPSHOT = 0x23
    REPLAY = 0x24
    BUNDLE = 0x30
    SYNC = 0x40
    PING = 0x41
    PONG = 0x42
    ACK = 0x50
    ERROR = 0x51
    QUERY = 0x60
    RESULT = 0x61


class Qos(IntEnum):
    """Delivery quality, bits 7-6 of a frame's flags. CONFIRM and COMMIT ask for an ACK."""

    FIRE = 0
    CONFIRM = 1
    COMMIT = 2


class Feature(IntFlag):
    """The features byte of HELLO and WELCOME."""

    PARAM = 0x80
    EVENT = 0x40
    STREAM = 0x20
    GESTURE = 0x10
    TIMELINE = 0x08
    FEDERATION = 0x04


class Signal(IntEnum):
    """The kind of signal of a PUBLISH or a definition."""

    PARAM = 0
    EVENT = 1
    STREAM = 2
    GESTURE = 3
    TIMELINE = 4


class Phase(IntEnum):
    """The phase of a gesture in a PUBLISH. If there is none, START is written."""

    START = 0
    MOVE = 1
    END = 2
    CANCEL = 3


class ValueType(IntEnum):
    """The type byte of a value."""

    NULL = 0x00
    BOOL = 0x01
    I8 = 0x02
    I16 = 0x03
    I32 = 0x04
    I64 = 0x05
    F32 = 0x06
    F64 = 0x07
    STRING = 0x08
    BYTES = 0x09
    ARRAY = 0x0A
    MAP = 0x0B


ALL_TYPES = 0xFF
"""The type mask of a subscription without a type filter; a mask of 0 means the same."""

TTL_ABSOLUTE = 0x8000_0000
"""Bit 31 of a TTL: seconds from the write; without it, seconds from the last access."""
