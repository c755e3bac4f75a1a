"""Tests of clasp_relay.core.records: the records of changes, and their encoding."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import (
    HEAD_BYTES,
    Change,
    ChangeKind,
    Ended,
    EndedSequence,
    Param,
    decode_change,
    encode_change,
    is_about,
    is_emptied_event,
    no_param,
)
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.errors import DecodeError
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Bundle, Publish
from clasp_relay.wire.values import decode_value
from tests.core.world import value
from tests.wire.strategies import MESSAGES, TEXT, U8, U16, U32, U64, VALUES


class ParamTests(SynchronousTestCase):
    def test_record_stays_what_it_was(self) -> None:
        """Code that holds a record keeps its values, whatever is written later."""
        params = Params(ParamLimits())
        first = Param("/a", value(1), 1, "w", 10)
        params.apply(Change(first))
        image = params.image()
        params.apply(Change(Param("/a", value(2), 2, "w", 20)))
        self.assertEqual(image.params, [first])
        self.assertRaises(AttributeError, setattr, first, "revision", 3)


_CHANGES: st.SearchStrategy[Change] = st.builds(
    Change,
    st.builds(Param, TEXT, VALUES, U64, TEXT, U64, st.none() | U32, TEXT, TEXT, st.binary(max_size=9)),
    st.sampled_from(ChangeKind),
    st.booleans(),
    st.booleans(),
    st.none() | U32,
    st.booleans(),
    st.none() | TEXT,
    st.none() | U64,
    U64,
    st.none() | MESSAGES.filter(lambda message: isinstance(message, Bundle | Publish)),
)
"""Changes of every kind, with whatever a change can hold."""

ADDRESS = b"\x00\x00\x00\x02/a"
NOBODY = b"\x00\x00\x00\x00"
NOTHING = b"\x00\x00\x00\x01\x00"
TIME = b"\x00\x00\x00\x00\x00\x00\x00\x09"
ABOUT = b"\x00\x00\x00\x00\x00\x00\x00\x00" + TIME
"""Revision 0 and the time: the head of what sets nothing."""

LITERALS: tuple[tuple[Change, bytes], ...] = (
    (
        Change(
            Param("/a", b"\x02\x05", 3, "w", 9, 60, "é", "here"),
            lock=True,
            ttl=60,
            takes_lock=True,
            stamp="bob",
            due_us=60_000_009,
        ),
        b"\x01\x01\x00\x7d\x00\x00\x00\x00\x00\x00\x00\x03"
        + TIME
        + ADDRESS
        + b"\x00\x00\x00\x01w\x00\x00\x00\x02\xc3\xa9\x00\x00\x00\x04here"
        b"\x00\x00\x00\x02\x02\x05\x00\x00\x00\x3c\x00\x00\x00\x3c\x00\x00\x00\x00\x03\x93\x87\x09\x00\x00\x00\x03bob",
    ),
    (
        Change(Param("/a", b"\x02\x05", 4, "", 9, sent_as=b" 5")),
        b"\x01\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00\x04"
        + TIME
        + ADDRESS
        + NOBODY * 3
        + b"\x00\x00\x00\x02\x02\x05\x00\x00\x00\x02 5",
    ),
    (
        Change(Param("/a", NULL, 4, "", 9), unlock=True),
        b"\x01\x01\x00\x02\x00\x00\x00\x00\x00\x00\x00\x04" + TIME + ADDRESS + NOBODY * 3 + NOTHING,
    ),
    (
        Change(no_param("/a", "", "", 9), ChangeKind.RENEWAL, due_us=0x0102),
        b"\x01\x02\x00\x40"
        + ABOUT
        + ADDRESS
        + NOBODY
        + NOBODY
        + NOBODY
        + NOTHING
        + b"\x00\x00\x00\x00\x00\x00\x01\x02",
    ),
    (
        Change(no_param("/a", "w", "", 9), ChangeKind.LOCK_RELEASE),
        b"\x01\x03\x00\x00" + ABOUT + ADDRESS + b"\x00\x00\x00\x01w" + NOBODY + NOBODY + NOTHING,
    ),
    (
        Change(no_param("", "", "", 9), ChangeKind.SCHEDULED, due_us=0x0102, number=7, message=Bundle()),
        b"\x01\x05\x01\xc0" + ABOUT + NOBODY * 4 + NOTHING + b"\x00\x00\x00\x00\x00\x00\x01\x02"
        b"\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x04\x30\x00\x00\x00",
    ),
    (
        Change(no_param("", "", "", 9), ChangeKind.DUE, number=7),
        b"\x01\x06\x00\x80" + ABOUT + NOBODY * 4 + NOTHING + b"\x00\x00\x00\x00\x00\x00\x00\x07",
    ),
    (
        Change(no_param("/a", "", "", 9), ChangeKind.EVENT, message=Publish("/a", Signal.EVENT)),
        b"\x01\x07\x01\x00" + ABOUT + ADDRESS + NOBODY * 3 + NOTHING + b"\x00\x00\x00\x07\x20\x20\x00\x02/a\x00",
    ),
    (
        Change(no_param("/a", "", "", 9), ChangeKind.SIGNAL, message=Publish("/a", Signal.EVENT)),
        b"\x01\x08\x01\x00" + ABOUT + ADDRESS + NOBODY * 3 + NOTHING + b"\x00\x00\x00\x07\x20\x20\x00\x02/a\x00",
    ),
    (
        Change(no_param("", "", "", 9), ChangeKind.POSITION, number=7),
        b"\x01\x09\x00\x80" + ABOUT + NOBODY * 4 + NOTHING + b"\x00\x00\x00\x00\x00\x00\x00\x07",
    ),
    (
        Change(no_param("", "", "", 9), ChangeKind.ACCOUNTS, number=7),
        b"\x01\x0a\x00\x80" + ABOUT + NOBODY * 4 + NOTHING + b"\x00\x00\x00\x00\x00\x00\x00\x07",
    ),
)
"""One of every kind, as it stands in a log."""


class EncodingTests(SynchronousTestCase):
    """Encoded changes: later versions have to read the logs of earlier ones."""

    def test_every_kind_is_encoded_as_it_always_was(self) -> None:
        """The exact bytes, in both directions."""
        for change, data in LITERALS:
            with self.subTest(change=change):
                self.assertEqual(encode_change(change), data)
                self.assertEqual(decode_change(data), change)
        self.assertEqual({change.kind for change, _ in LITERALS}, set(ChangeKind))

    @given(_CHANGES)
    def test_change_is_the_same_after_it_was_encoded(self, change: Change) -> None:
        """For any change."""
        self.assertEqual(decode_change(encode_change(change)), change)

    @given(_CHANGES, TEXT)
    def test_what_a_change_is_about_is_read_without_decoding(self, change: Change, address: str) -> None:
        """Its kind and its address."""
        data = encode_change(change)
        self.assertTrue(is_about(data, change.kind, change.param.address))
        self.assertFalse(is_about(data, change.kind + 1, change.param.address))
        self.assertFalse(is_about(data[:20], change.kind, change.param.address))
        self.assertEqual(is_about(data, change.kind, address), address == change.param.address)

    @given(_CHANGES)
    def test_beginning_tells_whether_something_is_left_of_a_signal(self, change: Change) -> None:
        """Other changes always have some content."""
        is_emptied = change.kind is ChangeKind.EVENT and change.message is None
        self.assertEqual(is_emptied_event(encode_change(change)[:HEAD_BYTES]), is_emptied)

    @given(st.binary(max_size=80) | st.tuples(st.just(b"\x01"), st.binary(min_size=35, max_size=90)).map(b"".join))
    def test_any_bytes_are_a_change_or_a_decode_error(self, data: bytes) -> None:
        """No other exception is raised."""
        self.check(data)

    @given(_CHANGES, st.lists(st.tuples(U16, U8), min_size=1, max_size=3), st.integers(-3, 3))
    def test_damaged_change_is_another_change_or_a_decode_error(
        self, change: Change, damages: list[tuple[int, int]], longer: int
    ) -> None:
        """If a byte is wrong, missing or added."""
        data = bytearray(encode_change(change))
        for at, byte in damages:
            data[at % len(data)] = byte
        self.check(bytes(data[:longer] if longer < 0 else data + bytes(longer)))

    def check(self, data: bytes) -> None:
        """Decodes bytes; if they decode, the change can be encoded again."""
        try:
            change = decode_change(data)
        except DecodeError:
            return
        self.assertEqual(decode_change(encode_change(change)), change)
        decode_value(change.param.value)

    def test_what_is_no_change_is_refused(self) -> None:
        """With a text that names the problem."""
        write = Change(Param("/a", b"\x02\x05", 3, "w", 9))
        good = encode_change(write)
        event = encode_change(LITERALS[-3][0])
        for data, expected in (
            (b"", "version none"),
            (b"\x02" + good[1:], "version 2"),
            (good[:10], "damaged"),
            (good[:-1], "ends too early"),
            (good + b"\x00", "bytes follow the record"),
            (good[:1] + b"\x63" + good[2:], "damaged"),
            (good[:2] + b"\x04" + good[3:], "flags"),
            (encode_change(write._replace(param=write.param._replace(value=b""))), "damaged"),
            (
                encode_change(write._replace(param=write.param._replace(value=b"\x02\x05\x05"))),
                "bytes follow the value",
            ),
            (good.replace(b"/a", b"/\xff"), "damaged"),
            (event.replace(b"\x00\x00\x00\x07\x20\x20\x00\x02/a\x00", b"\x00\x00\x00\x01\x41"), "cannot be kept"),
        ):
            with self.subTest(expected=expected, data=data):
                error = self.assertRaises(DecodeError, decode_change, data)
                self.assertIn(expected, error.message)


class EndedTests(SynchronousTestCase):
    def test_addresses_and_records_are_pairs(self) -> None:
        """It works like any sequence, though a pair is made only when it is read."""
        pairs = [(f"/{number}", Ended(number, 0)) for number in range(3)]
        ended = EndedSequence([address for address, _ in pairs], [record for _, record in pairs])
        self.assertEqual((list(ended), len(ended), ended[1], ended[-1]), (pairs, 3, pairs[1], pairs[2]))
        self.assertEqual((ended[1:], ended == pairs, pairs == ended), (pairs[1:], True, True))
        self.assertEqual((ended == pairs[:2], ended == 7), (False, False))
        self.assertRaises(TypeError, hash, ended)
