"""Maps OSC messages to CLASP messages, and CLASP messages to OSC packets (``docs/doors.md``, OSC)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clasp_relay.errors import DecodeError
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Message, ParamFields, Publish, Set, SignalDefinition, Value
from clasp_relay.wire.osc.packets import Argument, OscMessage, encode_message
from clasp_relay.wire.values import decode_value, encode_value

_PATTERN_CHARACTERS = "*?[]{},"


def prefix_of(namespace: str) -> str:
    """Returns the prefix of another protocol's addresses in CLASP; empty for the whole tree."""
    return "" if namespace == "/" else namespace


def message_of(prefix: str, message: OscMessage) -> Set | Publish:
    """Returns the CLASP message of an OSC message.

    Args:
        prefix: the prefix of its address in CLASP.
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
    """Returns the OSC packet of a CLASP value at an address; empty if OSC has no message for it.

    Args:
        prefix: the prefix of the address, which the OSC address does not have.
        address: the address of the param or the signal.
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
    # Without its brackets, an empty list could not be distinguished from no argument.
    return argument if isinstance(argument, tuple) and argument else (argument,)


def _argument(value: object) -> Argument:
    if isinstance(value, list):
        return tuple(map(_argument, value))
    if isinstance(value, dict):
        raise ValueError("OSC has no maps")
    assert value is None or isinstance(value, str | bytes | bool | int | float), "a value of no CLASP type"
    return value


class OscCodec:
    """Implements ``core.ports.Codec`` for OSC: deliveries are packets; answers are empty, since OSC has none.

    Args:
        prefix: the prefix of OSC addresses in CLASP.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def decode(self, _data: bytes) -> tuple[Message, int]:
        """Refuses: a packet may hold several messages, so the door decodes it.

        Raises:
            DecodeError: always.
        """
        raise DecodeError("an OSC packet is no single message")

    def cost(self, _data: bytes) -> int:
        """See ``core.ports.Codec``."""
        return 1

    def set(self, address: str, value: Value, _revision: int, _lock: bool, _unlock: bool, _ttl: int | None) -> bytes:
        """Encodes a change; empty if OSC has no message for it."""
        return packet_of(self._prefix, address, value)

    def publish(self, message: Publish) -> bytes:
        """Encodes a signal; empty if OSC has no message for it."""
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

    def snapshot(self, params: Iterable[ParamFields]) -> Iterator[bytes]:
        """Yields one packet for each param; empty if OSC has no message for it."""
        for param in params:
            yield packet_of(self._prefix, param.address, param.value)

    def result(self, _definitions: Iterable[SignalDefinition]) -> Iterator[bytes]:
        """Yields nothing."""
        return iter(())
