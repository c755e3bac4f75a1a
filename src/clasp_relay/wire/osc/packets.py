"""Decodes and encodes OSC packets, without I/O (http://opensoundcontrol.org/spec-1_0).

An argument is the Python object of its type tag: int (i, h, c, r), float (f, d), str (s, S), bytes (b, m, t), bool
(T, F), None (N, I), and a tuple for an array in brackets. MIDI messages are their 4 bytes, time tags their 8.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from clasp_relay.errors import DecodeError

Argument: TypeAlias = "int | float | str | bytes | bool | tuple[Argument, ...] | None"

MAX_DEPTH = 8
"""Levels of nested bundles or arrays; real ones are not nested."""

MAX_MESSAGES = 1_000
"""Messages of one packet: the shortest has 8 bytes, so a datagram could hold 4,000."""

MAX_ARGUMENTS = 4_000
"""Arguments and brackets of one packet, in all its messages together: each takes up to 1 µs to decode, and as much to
become a value, so that one packet stays below 10 ms."""

MESSAGES_A_UNIT, ARGUMENTS_A_UNIT = 64, 256
"""Messages, or arguments, of a packet that take 0.1 ms to decode: one unit of ``wire.cost``."""

IMMEDIATELY = 1
"""The time tag that means now."""

UNIX_EPOCH_S = 2_208_988_800
"""Seconds from 1900, where time tags begin, to 1970 (RFC 868)."""

_BUNDLE = b"#bundle\0"
_I32, _I64, _F32, _F64, _U32, _U64 = (struct.Struct(">" + code) for code in "iqfdIQ")
_NUMBERS = {"i": _I32, "h": _I64, "f": _F32, "d": _F64, "c": _U32, "r": _U32}
_BLOCKS = {"m": 4, "t": 8}
_CONSTANTS: dict[str, Argument] = {"T": True, "F": False, "N": None, "I": None}


@dataclass(frozen=True, slots=True)
class OscMessage:
    """One message: an address and its arguments."""

    address: str
    arguments: tuple[Argument, ...] = ()


@dataclass(frozen=True, slots=True)
class OscBundle:
    """Messages and bundles that take effect together, at the time of the time tag."""

    time_tag: int
    elements: tuple[OscMessage | OscBundle, ...] = ()


def time_tag_us(time_tag: int) -> int:
    """Returns the Unix time of a time tag, in µs; 0 for «immediately»."""
    if time_tag == IMMEDIATELY:
        return 0
    return ((time_tag >> 32) - UNIX_EPOCH_S) * 1_000_000 + ((time_tag & 0xFFFFFFFF) * 1_000_000 >> 32)


def decode_packet(data: bytes) -> OscMessage | OscBundle:
    """Decodes a packet: a datagram, or the bytes between two ENDs of SLIP.

    Args:
        data: the packet.

    Raises:
        DecodeError: it is not exactly one message or bundle, has an unknown type tag, is nested deeper than
            ``MAX_DEPTH``, or holds more than ``MAX_MESSAGES`` messages or ``MAX_ARGUMENTS`` arguments.
    """
    reader = _Reader()
    try:
        return reader.packet(data, 0)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise DecodeError(f"the OSC packet is damaged: {error}") from None


def packet_cost(data: bytes) -> int:
    """Estimates the cost of decoding a packet, before it is decoded; never raises.

    Args:
        data: the packet, valid or not.

    Returns:
        the cost in units of ``wire.cost``, apart from handling its messages; 0 for a short packet.
    """
    if len(data) <= ARGUMENTS_A_UNIT:
        return 0
    messages, arguments = _count(data, 0, len(data), 0)
    return messages // MESSAGES_A_UNIT + arguments // ARGUMENTS_A_UNIT


def _count(data: bytes, at: int, end: int, depth: int) -> tuple[int, int]:
    """Counts the messages and type tags between two offsets, without decoding them."""
    if depth >= MAX_DEPTH or not data.startswith(_BUNDLE, at, end):
        tags = data.find(b",", at, end)
        return 1, max(0, data.find(b"\0", tags, end) - tags) if tags >= 0 else 0
    messages = arguments = 0
    at += len(_BUNDLE) + _U64.size
    while at < end and messages <= MAX_MESSAGES:
        start = at + _U32.size
        at = start + int.from_bytes(data[at:start], "big")
        more, more_arguments = _count(data, start, min(at, end), depth + 1)
        messages, arguments = messages + more, arguments + more_arguments
    return messages, arguments


class _Reader:
    """Reads one packet, and counts its messages and arguments."""

    def __init__(self) -> None:
        self._messages = 0
        self._arguments = 0

    def packet(self, data: bytes, depth: int) -> OscMessage | OscBundle:
        if not data or len(data) % 4:
            raise DecodeError("the size of an OSC packet is not a multiple of 4")
        if data.startswith(_BUNDLE):
            return self._bundle(data, depth)
        self._messages += 1
        if self._messages > MAX_MESSAGES:
            raise DecodeError(f"an OSC packet holds more than {MAX_MESSAGES} messages")
        return self._message(data)

    def _bundle(self, data: bytes, depth: int) -> OscBundle:
        if depth >= MAX_DEPTH:
            raise DecodeError(f"OSC bundles are nested deeper than {MAX_DEPTH}")
        (time_tag,) = _U64.unpack_from(data, len(_BUNDLE))
        at = len(_BUNDLE) + _U64.size
        elements = []
        while at < len(data):
            (size,) = _U32.unpack_from(data, at)
            at += _U32.size
            if size > len(data) - at:
                raise DecodeError("an element of an OSC bundle is longer than the bundle")
            elements.append(self.packet(data[at : at + size], depth + 1))
            at += size
        return OscBundle(time_tag, tuple(elements))

    def _message(self, data: bytes) -> OscMessage:
        address, at = _string(data, 0)
        if not address.startswith("/"):
            raise DecodeError("an OSC address does not start with '/'")
        if at == len(data):
            return OscMessage(address)
        tags, at = _string(data, at)
        if not tags.startswith(","):
            raise DecodeError("the type tags of an OSC message do not start with ','")
        self._arguments += len(tags) - 1
        if self._arguments > MAX_ARGUMENTS:
            raise DecodeError(f"an OSC packet holds more than {MAX_ARGUMENTS} arguments and brackets")
        stack: list[list[Argument]] = [[]]
        for tag in tags[1:]:
            if tag == "[":
                if len(stack) > MAX_DEPTH:
                    raise DecodeError(f"OSC arrays are nested deeper than {MAX_DEPTH}")
                stack.append([])
            elif tag == "]":
                if len(stack) == 1:
                    raise DecodeError("an OSC array ends that did not begin")
                done = tuple(stack.pop())
                stack[-1].append(done)
            else:
                argument, at = _argument(tag, data, at)
                stack[-1].append(argument)
        if len(stack) > 1 or at != len(data):
            raise DecodeError("an OSC message has an open array, or bytes behind its arguments")
        return OscMessage(address, tuple(stack[0]))


def _argument(tag: str, data: bytes, at: int) -> tuple[Argument, int]:
    number = _NUMBERS.get(tag)
    if number is not None:
        return number.unpack_from(data, at)[0], at + number.size
    if tag in "sS":
        return _string(data, at)
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    size = _BLOCKS.get(tag)
    if tag == "b":
        (size,) = _U32.unpack_from(data, at)
        at += _U32.size
    if size is None:
        raise DecodeError(f"the OSC type tag {tag!r} is not known")
    if size > len(data) - at:
        raise DecodeError("an OSC argument is longer than its message")
    return data[at : at + size], at + size + -size % 4


def _string(data: bytes, at: int) -> tuple[str, int]:
    end = data.find(b"\0", at)
    if end < 0:
        raise DecodeError("an OSC string has no end")
    return data[at:end].decode(), end + 4 - (end - at) % 4


def encode_message(message: OscMessage) -> bytes:
    """Encodes a message.

    A float is f where that is exact, else d; an int is i, or h beyond 32 bits.

    Raises:
        ValueError: OSC has no encoding for it: an int beyond 64 bits, or a text with NUL.
    """
    tags, parts = [","], [b""]
    _add(message.arguments, tags, parts)
    parts[0] = _padded(message.address) + _padded("".join(tags))
    return b"".join(parts)


def _add(arguments: tuple[Argument, ...], tags: list[str], parts: list[bytes]) -> None:
    for argument in arguments:
        if isinstance(argument, tuple):
            tags.append("[")
            _add(argument, tags, parts)
            tags.append("]")
            continue
        tag, data = next(write(argument) for kind, write in _WRITERS if isinstance(argument, kind))
        tags.append(tag)
        parts.append(data)


def _write_int(number: int) -> tuple[str, bytes]:
    if -(2**31) <= number < 2**31:
        return "i", _I32.pack(number)
    if not -(2**63) <= number < 2**63:
        raise ValueError("an integer is outside 64 bits")
    return "h", _I64.pack(number)


def _write_float(number: float) -> tuple[str, bytes]:
    try:
        short = _F32.pack(number)
    except OverflowError:
        return "d", _F64.pack(number)
    is_exact = _F32.unpack(short)[0] == number or math.isnan(number)
    return ("f", short) if is_exact else ("d", _F64.pack(number))


def _write_bytes(data: bytes) -> tuple[str, bytes]:
    return "b", _U32.pack(len(data)) + data + bytes(-len(data) % 4)


_WRITERS: tuple[tuple[type, Callable[..., tuple[str, bytes]]], ...] = (
    (bool, lambda flag: ("T" if flag else "F", b"")),
    (int, _write_int),
    (float, _write_float),
    (str, lambda text: ("s", _padded(text))),
    (bytes, _write_bytes),
    (type(None), lambda _: ("N", b"")),
)


def _padded(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("an OSC string cannot hold NUL")
    data = text.encode()
    return data + bytes(4 - len(data) % 4)
