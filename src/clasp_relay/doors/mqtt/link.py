"""One connection's way out: what its session sends, the answers to its packets in their order, and its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from clasp_relay.core.ports import Frame
from clasp_relay.doors.mqtt.reasons import Reason, connack_code, end_reason
from clasp_relay.errors import CloseCode
from clasp_relay.net.backlog import Batch
from clasp_relay.net.outbox import Outbox
from clasp_relay.wire.mqtt.packets import (
    V4,
    V5,
    Acknowledge,
    Prop,
    Properties,
    PublishPacket,
    encode_acknowledge,
    encode_connack,
    encode_disconnect,
)


class Answer:
    """The answer to a PUBLISH, which leaves when what it answers is recorded, behind the answers before it."""

    __slots__ = ("is_recorded", "packet", "wire")

    def __init__(self, packet: PublishPacket | None = None) -> None:
        self.packet = packet
        """What is answered; None for what no record is awaited of."""
        self.wire: bytes | None = None
        """None until it is known; empty where QoS 0 has none."""
        self.is_recorded = False


class MqttLink:
    """The way out of one connection. Implements ``session.Link``.

    Args:
        outbox: the connection's.
        wrap: puts bytes into the transport's message.
        transport: what makes its bytes different from those of the same version elsewhere.
        refuse: counts and logs why something of the client was refused.
    """

    def __init__(
        self, outbox: Outbox, wrap: Callable[[bytes], bytes], transport: str, refuse: Callable[[str], None]
    ) -> None:
        self._outbox = outbox
        self._transport = transport
        self.wrap = wrap
        self.refuse = refuse
        self.version = V4
        self.key: object = None
        self.receive_maximum = 65_535
        self.max_packet_bytes = 1 << 28
        self.is_closing = False
        """Whether the end was decided, so that nothing of the client is taken any more."""
        self._is_let_in = False
        self._answers: deque[Answer] = deque()

    def speak(self, version: int) -> None:
        """Takes the version that CONNECT has said."""
        self.version = version
        self.key = (version, self._transport)

    # session.Link

    def send(self, frame: Frame) -> None:
        """See ``Link``."""
        self._outbox.send(frame)

    def send_batch(self, batch: Batch) -> None:
        """See ``Link``."""
        self._outbox.put(batch)

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """See ``Link``."""
        self._outbox.send_snapshot(key, frames)

    def recorded(self) -> None:
        """See ``Link``: answers leave in the order of what they answer."""
        answer = self.oldest_awaited()
        if answer is not None:
            answer.is_recorded = True
        self._send_answers()

    def close(self, close_code: CloseCode, reason: str) -> None:
        """See ``Link``."""
        self.end(end_reason(close_code), close_code, reason)

    def discard(self) -> None:
        """See ``Link``."""
        self._outbox.discard()

    # Answers

    def write(self, data: bytes) -> None:
        """Sends a packet behind all before."""
        self._outbox.send(Frame(self.wrap(data)))

    def expect(self, packet: PublishPacket) -> Answer:
        """Returns the answer to a PUBLISH, in its place; to be completed with ``complete``."""
        answer = Answer(packet)
        self._answers.append(answer)
        return answer

    def complete(self, answer: Answer, acknowledge: Acknowledge | None) -> None:
        """Says what an answer is, None for none; it leaves once it is recorded."""
        answer.wire = b"" if acknowledge is None else encode_acknowledge(self.version, acknowledge)
        self._send_answers()

    def answer(self, acknowledge: Acknowledge) -> None:
        """Answers a packet behind the answers before it; nothing is to be recorded."""
        answer = Answer()
        answer.is_recorded = True
        self._answers.append(answer)
        self.complete(answer, acknowledge)

    def oldest_awaited(self) -> Answer | None:
        """Returns the oldest answer whose record is awaited; None where all is recorded."""
        return next((answer for answer in self._answers if not answer.is_recorded), None)

    def _send_answers(self) -> None:
        answers = self._answers
        while answers and answers[0].is_recorded and answers[0].wire is not None:
            wire = answers.popleft().wire
            if wire:
                self.write(wire)

    # Beginning and end

    def let_in(self, was_there: bool, properties: Properties) -> None:
        """Says that the client's CONNECT is accepted.

        Args:
            was_there: whether its session goes on.
            properties: what it is told besides, in version 5.
        """
        self._is_let_in = True
        self.write(encode_connack(self.version, Reason.SUCCESS, was_there, properties))

    def turn_away(self, reason: Reason, text: str) -> None:
        """Refuses the client's CONNECT, and ends the connection."""
        self.refuse(text)
        properties: Properties = {Prop.REASON: text} if self.version == V5 else {}
        self.write(encode_connack(self.version, connack_code(reason, self.version), False, properties))
        self._close(CloseCode.POLICY_VIOLATION, text)

    def end(self, reason: Reason, close_code: CloseCode, text: str) -> None:
        """Ends the connection, with a DISCONNECT where the version has one."""
        if not self.is_closing:
            word = self.last_word(reason, text)
            self.is_closing = True
            if word:
                self.write(word)
            self._close(close_code, text)

    def last_word(self, reason: Reason, text: str) -> bytes:
        """Returns the DISCONNECT that is still to be sent; nothing where the version has none, or it was sent."""
        is_due = self.version == V5 and self._is_let_in and not self.is_closing
        return encode_disconnect(reason, text) if is_due else b""

    def hang_up(self) -> None:
        """Ends the connection of a client that has said so."""
        self._close(CloseCode.NORMAL, "closed by the client")

    def _close(self, close_code: CloseCode, text: str) -> None:
        self.is_closing = True
        self._outbox.close(close_code, text)
