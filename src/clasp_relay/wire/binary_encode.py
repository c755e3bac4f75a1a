"""Encodes messages in their binary forms (``docs/protocol.md``, Messages)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from clasp_relay.wire import messages as m
from clasp_relay.wire.binary_hot import encode_ack, encode_publish, encode_set
from clasp_relay.wire.constants import MessageCode, Qos
from clasp_relay.wire.frame import encode_frame

COUNTED_BYTES = 3
"""Bytes of a SNAPSHOT or RESULT before its entries: message code and count."""

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_F64 = struct.Struct(">d")
_PARAM_TAIL = struct.Struct(">QBH")


def _text(text: str) -> bytes:
    raw = text.encode()
    return _U16.pack(len(raw)) + raw


class _Options:
    """Gathers the flags and the bytes of the optional fields that are present."""

    __slots__ = ("_parts", "flags")

    def __init__(self, flags: int = 0) -> None:
        self.flags = flags
        self._parts: list[bytes] = []

    def add(self, flag: int, pack: Callable[[Any], bytes], field: object) -> _Options:
        if field is not None:
            self.flags |= flag
            self._parts.append(pack(field))
        return self

    @property
    def data(self) -> bytes:
        return b"".join(self._parts)

    def encode(self) -> bytes:
        return bytes((self.flags, *self.data))


def _hello(message: m.Hello) -> bytes:
    head = bytes((MessageCode.HELLO, message.version, message.features))
    return head + _text(message.name) + _text(message.token)


def _welcome(message: m.Welcome) -> bytes:
    head = bytes((MessageCode.WELCOME, message.version, message.features)) + _U64.pack(message.time_us)
    return head + _text(message.session) + _text(message.name) + _text(message.token)


def _counted(code: MessageCode, entries: Sequence[bytes]) -> bytes:
    return b"".join((bytes((code,)), _U16.pack(len(entries)), *entries))


def _announce(message: m.Announce) -> bytes:
    head = bytes((MessageCode.ANNOUNCE,)) + _text(message.namespace) + _U16.pack(len(message.signals))
    return head + b"".join([_definition(definition) for definition in message.signals])


def _definition(definition: m.SignalDefinition) -> bytes:
    meta = _Options()
    meta.add(1, _text, definition.unit).add(2, lambda pair: struct.pack(">dd", *pair), definition.range)
    meta.add(4, bytes, definition.default).add(8, _text, definition.description)
    options = _Options().add(1, _text, definition.datatype).add(2, _text, definition.access)
    options.add(4, _Options.encode, meta if meta.flags else None)
    return _text(definition.address) + bytes((definition.signal,)) + options.encode()


def _subscribe(message: m.Subscribe) -> bytes:
    options = _Options().add(1, _U32.pack, message.max_rate).add(2, _F64.pack, message.epsilon)
    head = bytes((MessageCode.SUBSCRIBE,)) + _U32.pack(message.id) + _text(message.pattern)
    return head + bytes((message.types,)) + options.encode()


def _unsubscribe(message: m.Unsubscribe) -> bytes:
    return bytes((MessageCode.UNSUBSCRIBE,)) + _U32.pack(message.id)


def snapshot_entry(param: m.ParamFields) -> bytes:
    """Encodes one param of a SNAPSHOT, so that a SNAPSHOT can be cut by the size of its params.

    Raises:
        ValueError: the address or the writer is longer than 65,535 bytes.
    """
    writer, timestamp_us = param.writer, param.timestamp_us
    raw = param.address.encode()
    head = _U16.pack(len(raw))
    if writer is not None and timestamp_us is not None:
        # Nearly all params have both; a new session gets thousands of params at once.
        name = writer.encode()
        tail = _PARAM_TAIL.pack(param.revision, 3, len(name))
        return b"".join((head, raw, param.value, tail, name, _U64.pack(timestamp_us)))
    options = _Options().add(1, _text, writer).add(2, _U64.pack, timestamp_us)
    return head + raw + param.value + _U64.pack(param.revision) + options.encode()


def snapshot_frame(entries: Sequence[bytes]) -> bytes:
    """Encodes a SNAPSHOT of encoded params as a frame that is ready to send.

    Args:
        entries: from ``snapshot_entry``; together at most ``MAX_PAYLOAD_BYTES - COUNTED_BYTES`` bytes.

    Raises:
        ValueError: they are more than a frame holds.
    """
    return encode_frame(_counted(MessageCode.SNAPSHOT, entries))


def _snapshot(message: m.Snapshot) -> bytes:
    return _counted(MessageCode.SNAPSHOT, [snapshot_entry(param) for param in message.params])


def _replay(message: m.Replay) -> bytes:
    options = _Options().add(0x80, _U64.pack, message.from_us).add(0x40, _U64.pack, message.to_us)
    options.add(0x20, _U32.pack, message.limit)
    head = bytes((MessageCode.REPLAY, options.flags)) + _text(message.pattern)
    return head + options.data + bytes((message.types,))


def _bundle(message: m.Bundle) -> bytes:
    options = _Options().add(0x80, _U64.pack, message.timestamp_us)
    parts = [bytes((MessageCode.BUNDLE, options.flags)), _U16.pack(len(message.messages)), options.data]
    for member in message.messages:
        if isinstance(member, m.Bundle):
            raise ValueError("a BUNDLE inside a BUNDLE is not supported")
        payload = encode(member)
        parts += (_U16.pack(len(payload)), payload)
    return b"".join(parts)


def _sync(message: m.Sync) -> bytes:
    options = _Options().add(1, _U64.pack, message.t2_us).add(2, _U64.pack, message.t3_us)
    return bytes((MessageCode.SYNC, options.flags)) + _U64.pack(message.t1_us) + options.data


def _ack(message: m.Ack) -> bytes:
    return encode_ack(message.address, message.revision, message.locked, message.holder, message.correlation_id)


def _error(message: m.Error) -> bytes:
    options = _Options().add(1, _text, message.address).add(2, _U32.pack, message.correlation_id)
    return bytes((MessageCode.ERROR,)) + _U16.pack(message.error) + _text(message.message) + options.encode()


def result_entry(definition: m.SignalDefinition) -> bytes:
    """Encodes one signal of a RESULT, which carries no meta, so that a RESULT can be cut by size.

    Raises:
        ValueError: a field is longer than 65,535 bytes.
    """
    options = _Options().add(1, _text, definition.datatype).add(2, _text, definition.access)
    return _text(definition.address) + bytes((definition.signal,)) + options.encode()


def result_frame(entries: Sequence[bytes]) -> bytes:
    """Encodes a RESULT of encoded signals as a frame that is ready to send.

    Args:
        entries: from ``result_entry``; together at most ``MAX_PAYLOAD_BYTES - COUNTED_BYTES`` bytes.

    Raises:
        ValueError: they are more than a frame holds.
    """
    return encode_frame(_counted(MessageCode.RESULT, entries))


def _result(message: m.Result) -> bytes:
    return _counted(MessageCode.RESULT, [result_entry(definition) for definition in message.signals])


ENCODERS: dict[type[m.Message], Callable[[Any], bytes]] = {
    m.Hello: _hello,
    m.Welcome: _welcome,
    m.Announce: _announce,
    m.Subscribe: _subscribe,
    m.Unsubscribe: _unsubscribe,
    m.Publish: encode_publish,
    m.Set: encode_set,
    m.Get: lambda message: bytes((MessageCode.GET,)) + _text(message.address),
    m.Snapshot: _snapshot,
    m.Replay: _replay,
    m.Bundle: _bundle,
    m.Sync: _sync,
    m.Ping: lambda _: bytes((MessageCode.PING,)),
    m.Pong: lambda _: bytes((MessageCode.PONG,)),
    m.Ack: _ack,
    m.Error: _error,
    m.Query: lambda message: bytes((MessageCode.QUERY,)) + _text(message.pattern),
    m.Result: _result,
}
"""The encoder of a message, by its class."""


def encode(message: m.Message) -> bytes:
    """Encodes a message as a binary payload.

    Args:
        message: the message; its values must be valid, since they are copied unchanged.

    Returns:
        The payload, without a frame.

    Raises:
        ValueError: a field is too large for its encoding.
    """
    try:
        return ENCODERS[type(message)](message)
    except struct.error as error:
        raise ValueError(f"{type(message).__name__}: {error}") from None


SET_QOS = Qos.CONFIRM
"""The QoS of a SET that the relay sends; the router that the clients were written for sends the same."""

PUBLISH_QOS = (Qos.CONFIRM, Qos.CONFIRM, Qos.FIRE, Qos.FIRE, Qos.COMMIT)
"""The QoS of a PUBLISH that the relay sends, by signal."""


def encode_to_frame(message: m.Message) -> bytes:
    """Encodes a message as a frame that is ready to send, with the QoS that the relay sends.

    Raises:
        ValueError: a field is too large for its encoding, or the message for a frame.
    """
    qos = Qos.FIRE
    if isinstance(message, m.Set):
        qos = SET_QOS
    elif isinstance(message, m.Publish):
        qos = PUBLISH_QOS[message.signal]
    return encode_frame(encode(message), qos)
