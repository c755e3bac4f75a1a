"""Reading the state's document."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from io import BytesIO
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Ended, StateImage
from clasp_relay.storage.state_reading import Restored, read_state
from clasp_relay.wire.values import encode_value
from tests.storage.values import TIME_US, WRITER, decode, string

RUST_FILE = b"""{"params":[
{"address":"/a","value":1.0,"revision":3,"writer":"0d1f6f54-6a43-4d4e-a2fb-6a8ba7b2d1a9","timestamp":1700000000000000},
{"address":"/a/int","value":-7,"revision":1,"writer":"w","timestamp":1700000000000001},
{"address":"/a/on","value":true,"revision":9223372036854775808,"writer":"w","timestamp":0},
{"address":"/a/text","value":"gr\xc3\xbc\xc3\x9fe \\ud83d\\ude00","revision":2,"writer":"w","timestamp":5},
{"address":"/a/bytes","value":[0,255],"revision":2,"writer":"w","timestamp":5},
{"address":"/a/map","value":{"b":[],"a":{"n":null}},"revision":2,"writer":"w","timestamp":5,"ttl":{"Sliding":5},"lock_holder":null},
{"address":"/a/big","value":9223372036854775808,"revision":2,"writer":"w","timestamp":5},
{"address":"/a/deep","value":[18446744073709551615],"revision":2,"writer":"w","timestamp":5},
{"address":"/a/gone","value":null,"revision":9,"writer":"w","timestamp":6}
]}"""


def entry(**changes: object) -> dict[str, object]:
    """Makes one param as the Rust relay writes it."""
    return {"address": "/a", "value": 1.0, "revision": 3, "writer": WRITER, "timestamp": TIME_US} | changes


def read(document: object) -> Restored:
    """Reads a document."""
    return decode(json.dumps(document).encode())


class RustFileTests(SynchronousTestCase):
    def test_rust_file_loads(self) -> None:
        """Values, revisions, writers and times come in; integers that no I64 holds become floats."""
        restored = decode(RUST_FILE)
        self.assertEqual((restored.left_out, restored.postdated), ("", ""))
        self.assertEqual(restored.image.expires_us, {})
        first, *others = restored.image.params
        self.assertEqual(first, ("/a", b"\x07" + struct.pack(">d", 1.0), 3, WRITER, TIME_US, None, "", "", b""))
        self.assertEqual(
            [(param.address, param.value, param.revision) for param in others],
            [
                ("/a/int", b"\x05" + struct.pack(">q", -7), 1),
                ("/a/on", b"\x01\x01", 2**63),
                ("/a/text", b"\x08" + string("grüße 😀"), 2),
                ("/a/bytes", b"\x0a\x00\x02\x05" + struct.pack(">q", 0) + b"\x05" + struct.pack(">q", 255), 2),
                (
                    "/a/map",
                    b"\x0b\x00\x02"
                    + string("b")
                    + b"\x0a\x00\x00"
                    + string("a")
                    + b"\x0b\x00\x01"
                    + string("n")
                    + b"\x00",
                    2,
                ),
                ("/a/big", b"\x07" + struct.pack(">d", 2.0**63), 2),
                ("/a/deep", b"\x0a\x00\x01\x07" + struct.pack(">d", 2.0**64), 2),
            ],
        )

    def test_deleted_param_of_a_rust_file_leaves_its_revision(self) -> None:
        """A null is no param; its revision is remembered."""
        self.assertEqual(decode(RUST_FILE).image.ended, [("/a/gone", Ended(9, 6))])

    def test_rust_file_loads_without_what_no_client_could_use(self) -> None:
        """Params that this relay would refuse are left out, each with a warning that names it."""
        deep: object = 1
        for _ in range(40):
            deep = [deep]
        cases: list[tuple[dict[str, object], str]] = [
            (entry(address=""), "param 0"),
            (entry(address="no-slash"), "param 0 (no-slash)"),
            (entry(address="/a/*/b"), "param 0 (/a/*/b)"),
            (entry(address="/a//b", value=None), "param 0 (/a//b)"),
            (entry(address="/a\n//" + "x" * 200), "param 0 (/a\\n//" + "x" * 75 + ")"),
            (entry(value=10**400), "too big"),
            (entry(value=deep), "nested deeper"),
            (entry(value="x" * 70_000), "cannot be said in CLASP"),
            (entry(value=["x" * 40_000, "x" * 40_000]), "too big for a frame"),
            (entry(value="x" * 65_480), "too big for a frame"),
            (entry(value="\ud800"), "cannot be said in CLASP"),
        ]
        for param, told in cases:
            with self.subTest(told):
                restored = read({"params": [param, entry(address="/other")]})
                self.assertEqual([param.address for param in restored.image.params], ["/other"])
                self.assertEqual(restored.image.ended, [])
                self.assertIn(told, restored.left_out)
                self.assertNotIn("\n", restored.left_out)

    def test_rust_file_may_be_empty(self) -> None:
        """No params are no problem."""
        self.assertEqual(read({"params": []}), (StateImage([], [], {}), "", ""))


class OwnFileTests(SynchronousTestCase):
    def test_encoded_wins_over_the_value(self) -> None:
        """What stands in encoded is the value."""
        restored = read({"version": 1, "params": [entry(value=None, encoded="CQABBw==")], "tombstones": []})
        self.assertEqual(restored.image.params[0].value, b"\x09\x00\x01\x07")

    def test_own_file_loads_without_what_would_be_refused_now(self) -> None:
        """Limits may have come since it was written; one line has the count and the first."""
        params = [entry(), entry(address="/a//b"), entry(address="/long", value="x" * 70_000)]
        tombstones = [{"address": "/*", "revision": 1, "timestamp": 1}]
        restored = read({"version": 1, "params": params, "tombstones": tombstones})
        self.assertEqual([param.address for param in restored.image.params], ["/a"])
        self.assertEqual(restored.image.ended, [])
        self.assertEqual(
            restored.left_out,
            "3 entries that this relay would refuse; the first: param 1 (/a//b): the address has an empty segment",
        )

    def test_value_that_no_message_may_bring_is_left_out(self) -> None:
        """For a key of a map in it, whether it stands as JSON or encoded; bytes that are no value at all are damage."""
        encoded = b64encode(encode_value({"a": {"__proto__": 1}})).decode()
        values: list[dict[str, object]] = [
            {"value": {"__proto__": 1}},
            {"value": [{"\ufeffa": 1}]},
            {"value": None, "encoded": encoded},
        ]
        params = [entry(address=f"/{number}", **value) for number, value in enumerate(values)]
        for version in ({}, {"version": 1}):
            with self.subTest(**version):
                restored = read({"params": [*params[: 2 + len(version)], entry()]} | version)
                self.assertEqual([param.address for param in restored.image.params], ["/a"])
                self.assertIn(f"{2 + len(version)} entries", restored.left_out)
                self.assertIn("param 0 (/0): a map has a key that is '__proto__'", restored.left_out)

    def test_address_beyond_the_limits_is_left_out(self) -> None:
        """Of segments and of bytes."""
        addresses = ["/a" * 129, "/" + "a" * 4096]
        for version in ({}, {"version": 1}):
            with self.subTest(**version):
                restored = read({"params": [*(entry(address=address) for address in addresses), entry()]} | version)
                self.assertEqual([param.address for param in restored.image.params], ["/a"])
                self.assertIn("2 entries", restored.left_out)

    def test_version_may_stand_behind_what_it_is_about(self) -> None:
        """As in a file whose keys a tool has sorted."""
        params = [entry(ttl=60, value=None, encoded="CQABBw==")]
        tombstones = [{"address": "/b", "revision": 1, "timestamp": 1}]
        for document in (
            {"params": params, "tombstones": tombstones, "version": 1},
            {"tombstones": tombstones, "version": 1, "params": params},
        ):
            with self.subTest(first=next(iter(document))):
                image = read(document).image
                self.assertEqual((image.params[0].ttl, image.params[0].value), (60, b"\x09\x00\x01\x07"))
                self.assertEqual(image.ended, [("/b", Ended(1, 1))])

    def test_deletion_in_the_future_counts_as_one_of_now(self) -> None:
        """A grace after it would last until then; one line has the count and the first. Life times stay."""
        tombstones = [
            {"address": "/then", "revision": 1, "timestamp": TIME_US + 1, "subject": "u"},
            {"address": "/now", "revision": 2, "timestamp": TIME_US},
        ]
        params = [
            entry(value=None, timestamp=TIME_US + 5),
            entry(address="/b", timestamp=TIME_US + 7, expires=TIME_US + 9),
        ]
        document = json.dumps({"version": 1, "params": params, "tombstones": tombstones}).encode()
        restored = read_state(BytesIO(document), TIME_US)
        self.assertEqual(
            restored.image.ended,
            [("/a", Ended(3, TIME_US)), ("/then", Ended(1, TIME_US, "u")), ("/now", Ended(2, TIME_US))],
        )
        self.assertEqual(restored.image.params[0].timestamp_us, TIME_US + 7)
        self.assertEqual(restored.image.expires_us, {"/b": TIME_US + 9})
        self.assertIn("2 deletions that lie in the future", restored.postdated)
        self.assertTrue(restored.postdated.endswith("; the first: /a"), restored.postdated)

    def test_subjects_and_writers_are_kept_once(self) -> None:
        """A state has few of them and many params, each of which would have its own otherwise."""
        params = [entry(address=f"/{number}", subject="user:1") for number in range(2)]
        first, second = read({"version": 1, "params": params}).image.params
        self.assertIs(first.writer, second.writer)
        self.assertIs(first.subject, second.subject)

    def test_own_file_may_have_keys_of_a_later_relay(self) -> None:
        """Unknown keys are ignored."""
        restored = read({"version": 1, "params": [entry(colour="red")], "more": 1})
        self.assertEqual(len(restored.image.params), 1)


class BrokenFileTests(SynchronousTestCase):
    def test_broken_file_is_refused_with_what_is_wrong(self) -> None:
        """Every kind of damage raises one line that says what and where."""
        cases: list[tuple[bytes, str]] = [
            (b"", "line 1, column 1"),
            (b"\x00" * 100, "line 1, column 1"),
            (b'{"params":[\n{"address":', "line 2"),
            (RUST_FILE[:300], "line 4"),
            (b"\xff", "utf-8"),
            (b"[" * 100_000, "nested too deep"),
            (b'{"params":[' + b"1" * 5000 + b"]}", "digits"),
            (b'{"params":[{"address":"/a","value":NaN}]}', "NaN is not JSON"),
            (b"[]", "not a JSON object"),
            (b'{"params":[' + b"[" * 100_000, "nested too deep"),
            (b'{"params":[],"params":[]}', '"params" is there twice'),
            (b"{}", '"params" is missing'),
            (b'{"params":{}}', '"params" is not a list'),
            (b'{"version":"1","params":[]}', "version is not an integer"),
            (b'{"version":2,"params":[]}', "with version 2; this one reads version 1"),
            (b'{"version":1,"params":[],"tombstones":{}}', '"tombstones" is not a list'),
        ]
        for data, told in cases:
            with self.subTest(data=data[:40]):
                error = self.assertRaises(ValueError, decode, data)
                self.assertIn(told, str(error))
                self.assertNotIn("\n", str(error))

    def test_broken_param_is_refused_by_name(self) -> None:
        """A param with a wrong field stops the load, in a Rust file and in one of ours."""
        cases: list[tuple[dict[str, object], str]] = [
            (entry(address=1), 'param 1: "address" is not a string'),
            (entry(address="/b\ud800"), '"address" is not Unicode text'),
            (entry(address="/b", revision=0), 'param 1 (/b): "revision" is not from 1'),
            (entry(address="/b", revision=2**63 + 1), '"revision" is not from 1'),
            (entry(address="/b", revision=1.0), '"revision" is not an integer'),
            (entry(address="/b", revision=True), '"revision" is not an integer'),
            (entry(address="/b", writer=None), '"writer" is not a string'),
            (entry(address="/b", timestamp=-1), '"timestamp" is not from 0'),
            (entry(address="/a"), "param 1 (/a): the address is there twice"),
        ]
        for param, told in cases:
            for more in ({}, {"version": 1}):
                with self.subTest(told, **more):
                    error = self.assertRaises(ValueError, read, {"params": [entry(), param]} | more)
                    self.assertIn(told, str(error))
                    self.assertTrue(str(error).encode())

    def test_param_with_a_missing_field_is_refused(self) -> None:
        """All five fields must be there."""
        for key in entry():
            with self.subTest(key):
                param = entry()
                del param[key]
                error = self.assertRaises(ValueError, read, {"params": [param]})
                self.assertIn(f'"{key}" is missing', str(error))

    def test_broken_optional_field_is_refused(self) -> None:
        """The optional keys of our files are checked too."""
        cases: list[tuple[dict[str, Any], str]] = [
            ({"ttl": -1}, '"ttl" is not from 0'),
            ({"ttl": "60"}, '"ttl" is not an integer'),
            ({"expires": 1.5}, '"expires" is not an integer'),
            ({"subject": 1}, '"subject" is not a string'),
            ({"origin": 1}, '"origin" is not a string'),
            ({"sent": 1}, '"sent" is not a string'),
            ({"sent": "!"}, "param 0 (/a): "),
            ({"encoded": 1}, '"encoded" is not a string'),
            ({"encoded": "!"}, "param 0 (/a): "),
            ({"encoded": ""}, '"encoded" is no value'),
            ({"encoded": "AA=="}, '"encoded" is no value'),
            ({"encoded": "CQAD"}, '"encoded" is no value'),
            ({"encoded": "AQEB"}, '"encoded" is no value'),
            ({"encoded": "/w=="}, '"encoded" is no value'),
        ]
        for changes, told in cases:
            with self.subTest(told, **changes):
                error = self.assertRaises(ValueError, read, {"version": 1, "params": [entry(**changes)]})
                self.assertIn(told, str(error))

    def test_broken_tombstone_is_refused_by_name(self) -> None:
        """A tombstone with a wrong field stops the load."""
        cases: list[tuple[object, str]] = [
            (1, "tombstone 0: not a JSON object"),
            ({"revision": 1}, 'tombstone 0: "address" is missing'),
            ({"address": "/b", "revision": 0, "timestamp": 1}, 'tombstone 0 (/b): "revision" is not from 1'),
            ({"address": "/b", "revision": 1}, '"timestamp" is missing'),
            ({"address": "/b", "revision": 1, "timestamp": 1, "subject": 1}, '"subject" is not a string'),
            ({"address": "/b", "revision": 1, "timestamp": 1, "stamp": None}, '"stamp" is not a string'),
            ({"address": "/a", "revision": 1, "timestamp": 1}, "tombstone 0 (/a): the address is there twice"),
        ]
        for tombstone, told in cases:
            with self.subTest(told):
                error = self.assertRaises(
                    ValueError, read, {"version": 1, "params": [entry()], "tombstones": [tombstone]}
                )
                self.assertIn(told, str(error))

    def test_param_that_is_no_object_is_refused(self) -> None:
        """A list or a number in place of a param is damage."""
        params: list[object] = [1, [], None]
        for param in params:
            with self.subTest(param=param):
                error = self.assertRaises(ValueError, read, {"params": [param]})
                self.assertIn("param 0: not a JSON object", str(error))
