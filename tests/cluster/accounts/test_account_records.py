"""Tests of clasp_relay.cluster.accounts.account_records: changes of accounts as they are in the log."""

from __future__ import annotations

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.accounts.account_records import Done, Record, change_of, record_of
from clasp_relay.core.records import ChangeKind, decode_change, encode_change
from clasp_relay.errors import DecodeError
from clasp_relay.storage.users_rows import Row, Told
from clasp_relay.wire.values import encode_value

values = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(), st.binary())
rows = st.builds(
    Row,
    st.text(),
    st.lists(values, max_size=2).map(tuple),
    st.one_of(st.none(), st.lists(values, max_size=4).map(tuple)),
)


class RecordTests(SynchronousTestCase):
    """Records and images."""

    @settings(max_examples=50, deadline=None)
    @given(st.lists(rows, max_size=5), st.binary(max_size=20), st.integers(0, 130_000).map(bytes))
    def test_a_record_is_read_as_it_was_written(self, some: list[Row], previous: bytes, outcome: bytes) -> None:
        """As a change of the journal, however long it is."""
        record = Record(7, previous, (Done("r1", 3, outcome),), tuple(some), (Told(b"f", 3),))
        change = change_of(record, 17)
        self.assertIs(change.kind, ChangeKind.ACCOUNTS)
        self.assertEqual((change.number, change.param.timestamp_us), (7, 17))
        found, digest = record_of(decode_change(encode_change(change)))
        self.assertEqual(found, record)
        self.assertEqual(len(digest), 16)

    def test_the_digest_names_the_record(self) -> None:
        """Another record has another one."""
        one, two = Record(1, b"", (), ()), Record(1, b"x", (), ())
        self.assertNotEqual(record_of(change_of(one, 1))[1], record_of(change_of(two, 1))[1])
        self.assertEqual(record_of(change_of(one, 1))[1], record_of(change_of(one, 2))[1])

    def test_what_is_no_record_is_refused(self) -> None:
        """Its number counts, too."""
        good = change_of(Record(1, b"", (), ()), 1)
        for value in (
            5,
            ["text"],
            [b"\xc1"],
            [msgpack.packb((1, 2))],
            [msgpack.packb((2, 1, b"", (), (), ()))],
            [msgpack.packb(())],
            [msgpack.packb((1, 1, b"", (), (("t", (1.5,), None),), ()))],
        ):
            with self.subTest(value=value):
                change = good._replace(param=good.param._replace(value=encode_value(value)))
                self.assertRaises(DecodeError, record_of, change)
        self.assertRaises(DecodeError, record_of, good._replace(number=2))
