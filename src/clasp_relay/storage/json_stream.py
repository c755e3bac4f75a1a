"""Reads a JSON object from a file piece by piece, so that the file and its contents need not fit into memory.

The file may be a few hundred megabytes, nearly all of it in one or two lists. Python's own decoder, whose scanner is
written in C, reads one element of such a list at a time from a window of the text; only the walk from one element to
the next is done here. What is accepted is what ``json.loads`` accepts, apart from keys that are there twice and a byte
order mark, which is skipped.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator
from typing import BinaryIO, NoReturn

CHUNK_BYTES = 256 * 1024
"""How much is read at a time; more if one element is bigger."""

_NEAR_END = 16
"""An error so close to the end of the window may come from the cut; the longest word of JSON, -Infinity, is shorter."""

_NUMBER_TAIL = 2
"""A number that ends so close to the end of the window may go on there: ``1e+`` reads as 1 before a 5 follows."""

_space = re.compile(r"[ \t\n\r]*").match
_comma = re.compile(r"[ \t\n\r]*,[ \t\n\r]*").match


class JsonObject:
    """The members of the one object that a file holds.

    Args:
        file: the file, from its beginning; strict JSON in UTF-8.
        listed: the keys whose values must be lists, which are read element by element.
    """

    def __init__(self, file: BinaryIO, listed: Collection[str]) -> None:
        self.keys: set[str] = set()
        """The keys so far."""
        self._file = file
        self._listed = listed
        self._decode_bytes = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._bytes_read = 0
        self._window = ""
        self._at = 0
        """The reading position in the window."""
        self._lines_before = 0
        self._columns_before = 0
        """Before the window: the number of line ends, and of characters since the last one."""
        self._is_at_end = False
        self._decode = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode

    def items(self) -> Iterator[tuple[str, object]]:
        """Yields key and value of each member, or key and element for each element of a listed one.

        Raises:
            ValueError: it is no JSON object; the text, one line, says what is wrong and where.
        """
        try:
            yield from self._items()
        except RecursionError as error:
            raise ValueError("nested too deep") from error

    def _items(self) -> Iterator[tuple[str, object]]:
        if self._peek() != "{":
            self._value()  # another value, or no JSON at all
            raise ValueError("not a JSON object")
        self._at += 1
        if self._peek() == "}":
            self._at += 1
        else:
            more = True
            while more:
                key = self._key()
                if key not in self._listed:
                    yield key, self._value()
                else:
                    for element in self._elements(key):
                        yield key, element
                more = self._goes_on("}")
        if self._peek():
            self._fail("Extra data")

    def _key(self) -> str:
        if self._peek() != '"':
            self._fail("Expecting property name enclosed in double quotes")
        key = str(self._value())
        if key in self.keys:
            raise ValueError(f"{json.dumps(key)} is there twice")
        self.keys.add(key)
        if self._peek() != ":":
            self._fail("Expecting ':' delimiter")
        self._at += 1
        self._peek()
        return key

    def _elements(self, key: str) -> Iterator[object]:
        if self._peek() != "[":
            raise ValueError(f'"{key}" is not a list')
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return
        more = True
        while more:
            yield self._value()
            found = _comma(self._window, self._at)
            if found is not None and found.end() < len(self._window):  # the usual case
                self._at = found.end()
            else:
                more = self._goes_on("]")

    def _goes_on(self, end: str) -> bool:
        """Steps over a comma or over ``end``; returns whether it was a comma."""
        found = self._peek()
        if found not in (",", end) or not found:
            self._fail("Expecting ',' delimiter")
        self._at += 1
        if found == ",":
            self._peek()
        return found == ","

    def _value(self) -> object:
        """Reads one value, with as much of the file as it takes."""
        while True:
            try:
                value, end = self._decode(self._window, self._at)
            except json.JSONDecodeError as error:
                is_cut = error.pos >= len(self._window) - _NEAR_END or error.msg.startswith("Unterminated string")
                if not is_cut or not self._read_more():
                    self._fail(error.msg, error.pos)
                continue
            if end < len(self._window) - _NUMBER_TAIL or not self._read_more():
                self._at = end
                return value

    def _peek(self) -> str:
        """Steps over white space and returns the next character; an empty text at the end."""
        while True:
            found = _space(self._window, self._at)
            self._at = self._at if found is None else found.end()
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._read_more():
                return ""

    def _read_more(self) -> bool:
        """Moves the window on, keeping its unread part; returns whether there was more."""
        if self._is_at_end:
            return False
        self._drop_read()
        # At least as much as the window has, so that a long element is not scanned again and again.
        data = self._file.read(max(CHUNK_BYTES, len(self._window)))
        self._is_at_end = not data
        try:
            self._window += self._decode_bytes(data, self._is_at_end)
        except UnicodeDecodeError as error:
            raise ValueError(f"not utf-8 text near byte {self._bytes_read + error.start}") from error
        self._bytes_read += len(data)
        return not self._is_at_end or self._at < len(self._window)

    def _drop_read(self) -> None:
        read, self._window, self._at = self._window[: self._at], self._window[self._at :], 0
        lines = read.count("\n")
        self._lines_before += lines
        self._columns_before = len(read) - read.rindex("\n") - 1 if lines else self._columns_before + len(read)

    def _fail(self, what: str, position: int | None = None) -> NoReturn:
        self._at = self._at if position is None else position
        self._drop_read()
        raise ValueError(f"line {self._lines_before + 1}, column {self._columns_before + 1}: {what}")


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
