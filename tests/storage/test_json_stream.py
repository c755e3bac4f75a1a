"""Reading a JSON object element by element."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.storage import json_stream
from clasp_relay.storage.json_stream import JsonObject

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_documents = st.dictionaries(st.text(), _json, max_size=4)
_formats = st.sampled_from([{}, {"indent": 2}, {"ensure_ascii": False, "separators": (",", ":")}, {"indent": "\t"}])


def read(document: bytes, *listed: str) -> list[tuple[str, object]]:
    """Reads a document."""
    return list(JsonObject(BytesIO(document), listed).items())


class JsonObjectTests(SynchronousTestCase):
    """Whatever the size of the pieces that are read."""

    def each_chunk_size(self) -> list[int]:
        """Returns sizes that cut a document everywhere."""
        return [1, 2, 3, 7, json_stream.CHUNK_BYTES]

    @given(_documents, st.lists(_json, max_size=5), _formats, st.integers(1, 40))
    def test_members_come_as_the_json_module_reads_them(
        self, others: dict[str, Any], items: list[Any], how: dict[str, Any], chunk_bytes: int
    ) -> None:
        """The same values in the same order, cut wherever; the listed one in pieces."""
        document = others | {"listed": items}
        self.patch(json_stream, "CHUNK_BYTES", chunk_bytes)
        expected = [(key, value) for key, value in document.items() if key != "listed"]
        found = read(json.dumps(document, **how).encode(), "listed")
        self.assertEqual([(key, value) for key, value in found if key != "listed"], expected)
        self.assertEqual([value for key, value in found if key == "listed"], items)

    def test_errors_are_placed_in_the_whole_text(self) -> None:
        """Line and column are those that the json module tells, however much was read before."""
        texts = (
            "",
            " \n ",
            "x",
            "{",
            '{"a"',
            '{"a":',
            '{"a":1',
            '{"a":1,}',
            '{"a":1 2}',
            "{1:2}",
            '{"a":1}\n\n x',
            '{"l":[\n{"a":1},\n{"a":x}\n]}',
            '{"l":[\n1,\n2',
            '{"l":[\n1,\n]}',
            '{"l":[\n"a", "b\n"]}',
            '{"l":["abc',
            '{"é":[1],\n"l":[1 1]}',
        )
        for text in texts:
            error = self.assertRaises(json.JSONDecodeError, json.loads, text)
            for chunk_bytes in self.each_chunk_size():
                with self.subTest(text=text, chunk_bytes=chunk_bytes):
                    self.patch(json_stream, "CHUNK_BYTES", chunk_bytes)
                    told = str(self.assertRaises(ValueError, read, text.encode(), "l"))
                    self.assertEqual(told.split(":", maxsplit=1)[0], f"line {error.lineno}, column {error.colno}", told)

    def test_what_is_no_such_object_is_told(self) -> None:
        """In words of its own where there is no place to tell."""
        cases = (
            (b"[]", "not a JSON object"),
            (b"1", "not a JSON object"),
            (b'{"l":{}}', '"l" is not a list'),
            (b'{"l":[1],"l":[2]}', '"l" is there twice'),
            (b'{"a":1,"a":2}', '"a" is there twice'),
            (b'{"a":[NaN]}', "NaN is not JSON"),
            (b'{"l":[-Infinity]}', "-Infinity is not JSON"),
            (b'{"l":[' + b"[" * 100_000, "nested too deep"),
            (b'{"a":"\xff"}', "not utf-8 text near byte 6"),
            (b'{"a":"\xc3', "not utf-8 text near byte"),
        )
        for document, told in cases:
            for chunk_bytes in (1, 64):
                with self.subTest(document=document[:20], chunk_bytes=chunk_bytes):
                    self.patch(json_stream, "CHUNK_BYTES", chunk_bytes)
                    self.assertIn(told, str(self.assertRaises(ValueError, read, document, "l")))

    def test_numbers_are_read_to_their_end(self) -> None:
        """A cut in one does not make two."""
        self.patch(json_stream, "CHUNK_BYTES", 1)
        self.assertEqual(read(b'{"l":[12345, -1.5e+10]}', "l"), [("l", 12345), ("l", -1.5e10)])

    def test_byte_order_mark_is_skipped(self) -> None:
        """Some editors put one there."""
        self.assertEqual(read(b'\xef\xbb\xbf{"a":1}'), [("a", 1)])

    def test_keys_are_known_even_of_empty_lists(self) -> None:
        """A list without elements yields nothing."""
        document = JsonObject(BytesIO(b'{"l":[],"a":null}'), ("l",))
        self.assertEqual(list(document.items()), [("a", None)])
        self.assertEqual(document.keys, {"l", "a"})

    def test_text_is_read_little_by_little(self) -> None:
        """When the first element is there, the file is not yet read."""
        file = BytesIO(b'{"l":[' + b",".join([b'{"a":1}'] * 200_000) + b"]}")
        items = JsonObject(file, ("l",)).items()
        self.assertEqual(next(items), ("l", {"a": 1}))
        self.assertLessEqual(file.tell(), 2 * json_stream.CHUNK_BYTES)
