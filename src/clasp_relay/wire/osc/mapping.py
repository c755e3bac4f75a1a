"""What an OSC message is in CLASP, and what a CLASP message is in OSC (``docs/doors.md``, OSC)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clasp_relay.errors import DecodeError
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Message, Publish, Set, SignalDefinition, SnapshotParam, Value
from clasp_relay.wire.osc.packets import Argument, OscMessage, encode_message
from clasp_relay.wire.values import decode_value, encode_value

_PATTERN_CHARACTERS = "*?[]{},"


def prefix_of(namespace: str) -> str:
    """Returns what stands before an address of another protocol in CLASP; nothing for the whole tree."""
    return "" if namespace == "/" else namespace


def message_of(prefix: str, message: OscMessage) -> Set | Publish:
    """Returns what an OSC message says in CLASP.

    Args:
        prefix: what stands before its address.
        message: the message.

    Raises:
        DecodeError: its address is a pattern, or CLASP has no value for its arguments.
    """
    wildcard = next((character for character in _PATTERN_CHARACTERS if character in message.address), None)
    if wildcard is not None:
        raise DecodeError(f"the OSC address {message.address[:200]} is a pattern ({wildcard!r}): send to one address")
    address = prefix + message.address
    arguments = message.arguments
    if not arguments:
        return Publish(address, Signal.EVENT)
    if arguments == (None,):
        return Publish(address, Signal.EVENT, value=NULL)
    try:
        value = encode_value(arguments[0] if len(arguments) == 1 else arguments)
    except ValueError as error:
        raise DecodeError(f"the OSC arguments have no value in CLASP: {error}") from None
    return Set(address, value)


def packet_of(prefix: str, address: str, value: Value | None) -> bytes:
    """Returns a CLASP value at an address as an OSC message; empty where OSC has none.

    Args:
        prefix: what the address must begin with, and what OSC does not show.
        address: where it is set or was published.
        value: the value, null for a delete; None for an event without one.
    """
    if not address.startswith(prefix + "/"):
        return b""
    try:
        arguments = (None,) if value is None else _arguments(decode_value(value))
        return encode_message(OscMessage(address[len(prefix) :], arguments))
    except ValueError:
        return b""


def _arguments(value: object) -> tuple[Argument, ...]:
    argument = _argument(value)
    # OSC cannot tell no argument from an empty list, so that keeps its brackets.
    return argument if isinstance(argument, tuple) and argument else (argument,)


def _argument(value: object) -> Argument:
    if isinstance(value, list):
        return tuple(map(_argument, value))
    if isinstance(value, dict):
        raise ValueError("OSC has no maps")
    assert value is None or isinstance(value, str | bytes | bool | int | float), "a value of no CLASP type"
    return value


class OscCodec:
    """Implements ``core.ports.Codec`` for OSC: deliveries are packets, answers are nothing, for OSC has none.

    Args:
        prefix: what stands before an OSC address in CLASP.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def decode(self, _data: bytes) -> tuple[Message, int]:
        """Refuses: a packet may be several messages, so the door takes it apart.

        Raises:
            DecodeError: always.
        """
        raise DecodeError("an OSC packet is no single message")

    def cost(self, _data: bytes) -> int:
        """See ``core.ports.Codec``."""
        return 1

    def set(self, address: str, value: Value, _revision: int, _lock: bool, _unlock: bool, _ttl: int | None) -> bytes:
        """Encodes a change; empty where OSC has no message for it."""
        return packet_of(self._prefix, address, value)

    def publish(self, message: Publish) -> bytes:
        """Encodes a signal; empty where OSC has no message for it."""
        return packet_of(self._prefix, message.address, message.value)

    def ack(
        self,
        _address: str | None = None,
        _revision: int | None = None,
        _locked: bool | None = None,
        _holder: str | None = None,
    ) -> bytes:
        """Returns nothing."""
        return b""

    def encode(self, _message: Message) -> bytes:
        """Returns nothing."""
        return b""

    def snapshot(self, params: Iterable[SnapshotParam]) -> Iterator[bytes]:
        """Yields the params that OSC has a message for, one packet each; an empty one for each other."""
        for param in params:
            yield packet_of(self._prefix, param.address, param.value)

    def result(self, _definitions: Iterable[SignalDefinition]) -> Iterator[bytes]:
        """Yields nothing."""
        return iter(())
