"""The ``value`` that a check compares a field with."""

from __future__ import annotations

import json
from dataclasses import dataclass

from clasp_relay.access.policy.captures import Captured, Template
from clasp_relay.access.policy.checks.base import Reading
from clasp_relay.access.policy.maps import encode_text, same
from clasp_relay.wire.constants import MAX_PAYLOAD_BYTES
from clasp_relay.wire.messages import NULL, Value
from clasp_relay.wire.values import decode_value, encode_value


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text with captures, a number, true, false or null.

    Args:
        template: the text; None for the rest.
        value: what is not text.
    """

    template: Template | None
    value: Value = NULL

    @classmethod
    def read(cls, reading: Reading, key: str) -> Scalar:
        """Reads it from a document.

        Raises:
            StartError: it is a list or an object, or uses what is not captured.
        """
        raw = reading.keys.raw(key)
        if isinstance(raw, str):
            try:
                return cls(Template.parse(raw, reading.names))
            except ValueError as error:
                reading.keys.fail(key, str(error))
        if isinstance(raw, (list, dict)):
            reading.keys.fail(key, "must be a string, a number, true, false or null")
        try:
            return cls(None, encode_value(raw))
        except ValueError as error:
            reading.keys.fail(key, str(error))

    def expand(self, words: Captured) -> str:
        """Returns it as people read it."""
        return json.dumps(decode_value(self.value)) if self.template is None else self.template.expand(words)

    def equals(self, field: Value | None, words: Captured) -> bool:
        """Tells whether a field says this; what is missing says null."""
        said = NULL if field is None else field
        if self.template is None:
            return same(said, self.value)
        text = self.template.expand(words).encode()
        return len(text) <= MAX_PAYLOAD_BYTES and said == encode_text(text)
