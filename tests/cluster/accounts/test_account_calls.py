"""Tests of clasp_relay.cluster.accounts.account_calls: what can be asked of the decider, and nothing else."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.accounts.account_calls import (
    ASKED,
    LOOK_UPS,
    REFUSALS,
    Failed,
    Methods,
    decode_outcome,
    encode_outcome,
    method_of,
    pack,
    unpack,
)
from clasp_relay.errors import DecodeError
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.users import NameTaken, StoreBusy
from clasp_relay.storage.users_rows import OtherAccounts, Row, Told
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.storage.test_users_rows import CALLS
from tests.storage.test_users_sqlite import ALICE, NO_PROOF, NOW_S, keys_of, token, user


class MethodTests(SynchronousTestCase):
    """Methods and their arguments."""

    def setUp(self) -> None:
        """Makes a store."""
        self.store = SqliteUsers(None, keys_of)
        self.addCleanup(self.store.close)
        self.methods = Methods(self.store)

    def test_every_method_can_be_encoded(self) -> None:
        """Its annotations say what its arguments and its result are."""
        for part, (_, names) in ASKED.items():
            for name in names:
                with self.subTest(method=f"{part}.{name}"):
                    method = method_of(f"{part}.{name}")
                    self.assertTrue(method.parameters)
        for part, (kind, names) in LOOK_UPS.items():
            for name in names:
                with self.subTest(method=f"{part}.{name}"):
                    self.assertTrue(callable(getattr(kind, name)))

    def test_arguments_arrive_as_they_were(self) -> None:
        """By position and by name, defaults included."""
        entry = AuditEntry(NOW_S, "a", detail={"list": [1, None, {"x": b"y"}]})
        for name, args, kwargs in (
            ("users.add_user", (user(), ALICE, token("a"), NO_PROOF), {}),
            ("users.add_user", (user(), ALICE, token("a"), NO_PROOF, b"invite"), {}),
            ("administration.delete", ("u1", AuditEntry(1, "x")), {"erases_messages": True}),
            ("administration.choose", ({"guests": None, "registration": "open"}, entry._replace(detail={})), {}),
            (
                "rows.put",
                ([Row("choices", ("a",), None), Row("users", ("u",), ("n", b"", 1, None))], Told(b"f", 3)),
                {},
            ),
        ):
            with self.subTest(method=name):
                method = method_of(name)
                found = method.decode_arguments(method.encode_arguments(args, kwargs))
                expected = {"invite": None, **dict(zip(method.parameters, args, strict=False)), **kwargs}
                self.assertEqual(found, {key: expected[key] for key in method.parameters})
        data = method_of("administration.grant").encode_arguments(("u1", entry), {})
        found_entry = method_of("administration.grant").decode_arguments(data)["entry"]
        self.assertEqual(found_entry.detail, {"list": (1, None, {"x": b"y"})})

    def test_what_sqlite_calls_true_is_true(self) -> None:
        """A user as the store returns it."""
        self.store.add_user(user(), ALICE, token("a"), NO_PROOF)
        method = method_of("users.replace_hash")
        data = method.encode_arguments((self.store.user("u1"), "hash"), {})
        self.assertIs(method.decode_arguments(data)["user"].is_disabled, False)
        self.assertRaises(DecodeError, unpack, bool, 2)

    def test_only_methods_of_this_store_are_asked(self) -> None:
        """Others are called where they are."""
        self.assertEqual(self.methods.name_of(self.store.add_user), "users.add_user")
        self.assertEqual(self.methods.name_of(self.store.audit.trim), "audit.trim")
        self.assertIsNone(self.methods.name_of(self.store.user))
        self.assertIsNone(self.methods.name_of(self.store.audit.add))
        self.assertIsNone(self.methods.name_of(len))
        other = SqliteUsers(None, keys_of)
        self.addCleanup(other.close)
        self.assertIsNone(self.methods.name_of(other.add_user))
        self.assertTrue(self.methods.looks_up(self.store.find_user))
        self.assertFalse(self.methods.looks_up(self.store.sign_ins))

    def test_what_is_not_in_the_table_is_never_called(self) -> None:
        """However it is spelled."""
        for name in ("users.close", "users._insert", "rows.follow", "rows.attempt", "nothing.add", "users", "", "."):
            with self.subTest(name=name):
                self.assertRaises(DecodeError, self.methods.call, name, msgpack.packb([]))

    def test_arguments_that_do_not_fit_are_refused(self) -> None:
        """Before anything is called."""
        good = method_of("users.revoke")
        self.assertRaises(DecodeError, self.methods.call, "users.revoke", b"\xc1")
        bad: list[Any] = [[], [b"d"], [b"d", 1, 2], ["text", 1], [b"d", True], [b"d", 1.0], [b"d", None], {}, 5]
        for arguments in bad:
            with self.subTest(arguments=arguments):
                self.assertRaises(DecodeError, good.decode_arguments, msgpack.packb(arguments))
        for name, value in (
            ("users.end", [["x"], 1]),
            ("administration.grant", ["u1", [1, "a"]]),
            ("rows.put", [[["t", [1.5], []]], [b"f", 1]]),
        ):
            with self.subTest(name=name):
                self.assertRaises(DecodeError, method_of(name).decode_arguments, msgpack.packb(value))

    @given(st.binary(max_size=200))
    def test_any_bytes_are_arguments_or_refused(self, data: bytes) -> None:
        """Nothing else happens."""
        for name in ("users.add_user", "administration.grant", "rows.put", "administration.choose"):
            try:
                method_of(name).decode_arguments(data)
            except DecodeError:
                continue

    def test_deep_values_are_refused(self) -> None:
        """They would fill the stack."""
        value: Any = ()
        hint: Any = int
        for _ in range(20):
            hint, value = list[hint], (value,)
        self.assertRaises(DecodeError, unpack, hint, value)

    def test_what_has_no_encoding_is_a_fault_of_ours(self) -> None:
        """It is never sent."""
        self.assertRaises(TypeError, pack, {1, 2})

    def test_a_call_is_made(self) -> None:
        """With what was sent."""
        method = method_of("users.add_user")
        data = method.encode_arguments((user(), ALICE, token("a"), NO_PROOF), {})
        self.assertIsNone(self.methods.call("users.add_user", data)())
        self.assertEqual(self.store.user("u1"), user())
        data = method_of("administration.delete").encode_arguments(
            ("u1", AuditEntry(1, "x")), {"erases_messages": True}
        )
        self.methods.call("administration.delete", data)()
        self.assertTrue(self.store.administration.deletions()[0].erases_messages)


class OutcomeTests(SynchronousTestCase):
    """What comes of a call."""

    def test_results_arrive_as_they_were(self) -> None:
        """Of every method that was ever called in a test."""
        store = SqliteUsers(None, keys_of)
        self.addCleanup(store.close)
        for name, result in (("users.revoke", [b"1", b"2"]), ("users.purge", 5), ("administration.use_reset", "u1")):
            with self.subTest(method=name):
                self.assertEqual(decode_outcome(name, encode_outcome(result, is_refused=False)), result)
        self.assertTrue(CALLS)

    def test_refusals_arrive_by_name(self) -> None:
        """All that a store may raise, but for a file that is held."""
        self.assertNotIn(StoreBusy, REFUSALS.values())
        self.assertIn(OtherAccounts, REFUSALS.values())
        for kind in REFUSALS.values():
            with self.subTest(refusal=kind):
                data = encode_outcome(kind(), is_refused=True)
                self.assertRaises(kind, decode_outcome, "users.revoke", data)
        self.assertIn(NameTaken, REFUSALS.values())

    def test_a_failure_is_said(self) -> None:
        """Its text is the decider's."""
        data = encode_outcome(Failed("why"), is_refused=True)
        self.assertRaisesRegex(Failed, "why", decode_outcome, "users.revoke", data)

    def test_what_is_no_outcome_is_refused(self) -> None:
        """Of that method."""
        for value in (5, (0,), (0, 1), (0, None)):
            self.assertRaises(DecodeError, decode_outcome, "users.revoke", msgpack.packb(value))
