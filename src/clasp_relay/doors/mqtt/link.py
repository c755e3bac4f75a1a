"""The outgoing side of a connection: what its session sends, the answers to its packets in order, and its end."""

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
    """The answer to a PUBLISH, which is sent in order once the PUBLISH is recorded."""

    __slots__ = ("is_recorded", "packet", "wire")

    def __init__(self, packet: PublishPacket | None = None) -> None:
        self.packet = packet
        """The PUBLISH; None if it need not be recorded."""
        self.wire: bytes | None = None
        """None until it is known; empty for QoS 0, which has no answer."""
        self.is_recorded = False


class MqttLink:
    """The outgoing side of one connection. Implements ``session.Link``.

    Args:
        outbox: the outbox of the connection.
        wrap: puts bytes into the transport's message.
        transport: the name of the transport, since the bytes of one version differ between transports.
        refuse: counts and logs a refusal, with its reason.
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
        """Whether the connection is closed, so that the client's packets are ignored."""
        self._is_let_in = False
        self._answers: deque[Answer] = deque()

    def speak(self, version: int) -> None:
        """Sets the protocol version of the CONNECT."""
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
        """See ``Link``; answers are sent in the order of the packets."""
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
        """Sends a packet after all before it."""
        self._outbox.send(Frame(self.wrap(data)))

    def expect(self, packet: PublishPacket) -> Answer:
        """Adds the answer to a PUBLISH to the queue; to be completed with ``complete``."""
        answer = Answer(packet)
        self._answers.append(answer)
        return answer

    def complete(self, answer: Answer, acknowledge: Acknowledge | None) -> None:
        """Sets the bytes of an answer, None for none; it is sent once the PUBLISH is recorded."""
        answer.wire = b"" if acknowledge is None else encode_acknowledge(self.version, acknowledge)
        self._send_answers()

    def answer(self, acknowledge: Acknowledge) -> None:
        """Answers a packet, in order; nothing has to be recorded for it."""
        answer = Answer()
        answer.is_recorded = True
        self._answers.append(answer)
        self.complete(answer, acknowledge)

    def oldest_awaited(self) -> Answer | None:
        """Returns the oldest answer that waits for its record; None if all are recorded."""
        return next((answer for answer in self._answers if not answer.is_recorded), None)

    def _send_answers(self) -> None:
        answers = self._answers
        while answers and answers[0].is_recorded and answers[0].wire is not None:
            wire = answers.popleft().wire
            if wire:
                self.write(wire)

    # Beginning and end

    def let_in(self, was_there: bool, properties: Properties) -> None:
        """Tells the client that its CONNECT is accepted.

        Args:
            was_there: whether it has a kept session.
            properties: the properties of the CONNACK, in version 5.
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
        """Ends the connection, with a DISCONNECT if the version has one."""
        if not self.is_closing:
            word = self.last_word(reason, text)
            self.is_closing = True
            if word:
                self.write(word)
            self._close(close_code, text)

    def last_word(self, reason: Reason, text: str) -> bytes:
        """Returns the DISCONNECT that is still to be sent; empty if the version has none, or it was sent."""
        is_due = self.version == V5 and self._is_let_in and not self.is_closing
        return encode_disconnect(reason, text) if is_due else b""

    def hang_up(self) -> None:
        """Ends the connection after the client's DISCONNECT."""
        self._close(CloseCode.NORMAL, "closed by the client")

    def _close(self, close_code: CloseCode, text: str) -> None:
        self.is_closing = True
        self._outbox.close(close_code, text)
