"""The sessions of all relays as the decider has them: which there are, at which relay, and what they are answered.

The sessions of the decider's own relay are among them. Each is a session of the decider's core; its outbox gathers the
answers for the next batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from clasp_relay.cluster.deciding.batch_log import BatchLog
from clasp_relay.cluster.exchange.batches import AckFields, Answer, Answered, Began, Ended, Willed
from clasp_relay.cluster.exchange.packets import Entry
from clasp_relay.core.ports import Frame
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import NoOutbox, Session
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.codec import encode
from clasp_relay.wire.messages import Error, Message

__all__ = ["Link", "RemoteSession", "RemoteSessions"]

REFUSED = Disconnect(CloseCode.POLICY_VIOLATION, "the token was revoked: sign in again", ErrorCode.TOKEN_EXPIRED)
"""The end of a session whose token the decider does not know any more."""


ACK_BYTES = 40
"""Approximate size of an ACK besides its address."""


class _Payloads(ClaspCodec):
    """Encodes answers other than ACKs as payloads, without a frame around them."""

    def encode(self, message: Message, /) -> bytes:
        """See ``Codec``."""
        return encode(message)


_PAYLOADS = _Payloads()


class RemoteSession:
    """A session of some relay, as the decider knows it. Its outbox is itself.

    Args:
        link: the link of its relay.
        done: the number of its last request that is done.
        touch: called with the session and the size in bytes of each answer.
        closed: called when the core ends the session.
    """

    def __init__(
        self,
        link: str,
        done: int,
        touch: Callable[[RemoteSession, int], None],
        closed: Callable[[RemoteSession, CloseCode, str], None],
    ) -> None:
        self._touch = touch
        self._closed = closed
        self.link = link
        self.session: Session
        self.taken = done
        """The number of its last request that was taken."""
        self.done = done
        self.at_work = 0
        """The number of the request that is being handled, perhaps in pieces; 0 for none."""
        self.queue: deque[Entry] = deque()
        """The requests that were taken and are not handled yet."""
        self.answers: list[tuple[int, Answer]] = []
        self.will: Willed | None = None
        """Its will; None for none."""

    def send(self, frame: Frame) -> None:
        """See ``Outbox``."""
        self.answers.append((self.at_work, frame.wire))
        self._touch(self, len(frame.wire))

    def ack(self, fields: AckFields) -> None:
        """Answers with an ACK; see ``DecidersRelay``."""
        self.answers.append((self.at_work, fields))
        address = fields[0]
        self._touch(self, ACK_BYTES if address is None else ACK_BYTES + len(address))

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """See ``Outbox``; does nothing, since nothing is read here."""

    def close(self, close_code: CloseCode, reason: str) -> None:
        """See ``Outbox``: the session ends, at its relay too."""
        self._closed(self, close_code, reason)

    def discard(self) -> None:
        """See ``Outbox``; does nothing, since decided requests are answered."""


class Link:
    """A relay whose sessions send requests here."""

    def __init__(self) -> None:
        self.expected = 0
        """The number of its next packet; 0 if it first has to send all requests that are not done."""
        self.remotes: dict[str, RemoteSession] = {}


class RemoteSessions:
    """See the module.

    Args:
        relay: the decider's core.
        log: gathers the answers, and the beginnings and ends of sessions.
        closed: called when the core ends a session.
    """

    def __init__(self, relay: Relay, log: BatchLog, closed: Callable[[RemoteSession, CloseCode, str], None]) -> None:
        self._relay = relay
        self._log = log
        self._closed = closed
        self.links: dict[str, Link] = {}
        """The relays that have joined, by their links."""
        self.by_id: dict[str, RemoteSession] = {}
        self._touched: dict[RemoteSession, None] = {}
        """Sessions with something new for the next batch: an answer, or a request that is done."""

    # Begin and end

    def begin(self, began: Began, number: int, *, is_known: bool = False) -> RemoteSession | None:
        """Admits a session here, or ends it.

        Args:
            began: the session.
            number: the number of its last request that is done.
            is_known: whether the log has its beginning.

        Returns:
            the session; None if it was ended.
        """
        try:
            remote = self._admit(began, number)
        except Disconnect as refusal:
            if refusal.code is not None:
                error = encode(Error(refusal.code, refusal.reason))
                self._log.add(Answered(began.session_id, number, ((0, error),)), len(error))
            self._log.add(Ended(began.session_id, int(refusal.close_code), refusal.reason))
            return None
        if not is_known:
            self._log.add(began)
            self.touch(remote, 0)
        return remote

    def _admit(self, began: Began, number: int) -> RemoteSession:
        """Makes a session live here.

        Raises:
            Disconnect: its token is not valid any more, or sessions without a token are not admitted.
        """
        relay, permissions = self._relay, self._relay.permissions
        remote = RemoteSession(began.link, number, self.touch, self._closed)
        session = remote.session = relay.connect(remote, "", _PAYLOADS)
        session.id, session.origin = began.session_id, began.origin
        if began.token or began.vouched:
            identity = permissions.readmit(began.subject, began.token, began.vouched)
        else:
            identity = permissions.admit("", session)
        if identity is None:
            raise REFUSED.again()
        session.identity = identity
        session.account = relay.accounts.open(identity.subject, session.origin)
        relay.admit(session)
        # Its own relay applies the message limits.
        session.limiter = None
        self.by_id[began.session_id] = remote
        self.links.setdefault(began.link, Link()).remotes[began.session_id] = remote
        return remote

    def pass_on(self, subject: str, old: bytes, new: bytes) -> None:
        """Moves the sessions of a token to its successor, also at the next decider."""
        for session in self._relay.sessions.of_token(subject, old):
            session.identity = replace(session.identity, token=new)
            remote = self.by_id.get(session.id)
            if remote is not None:
                self._log.add(Began(session.id, remote.link, subject, new, session.origin))

    def remove(self, remote: RemoteSession) -> None:
        """Removes a session that has ended, with the requests of it that wait."""
        self.by_id.pop(remote.session.id, None)
        remote.queue.clear()
        self._touched.pop(remote, None)
        link = self.links.get(remote.link)
        if link is not None:
            link.remotes.pop(remote.session.id, None)
        # The session and its outbox would hold each other.
        remote.session.outbox = NoOutbox()

    # Answers

    def touch(self, remote: RemoteSession, size_bytes: int) -> None:
        """Notes that a session has an answer, or that a request of it is done."""
        self._log.size_bytes += size_bytes
        if remote not in self._touched and remote.session.id in self.by_id:
            self._touched[remote] = None
            self._log.when_filled()

    def answer(self, remote: RemoteSession) -> None:
        """Gathers the answers of a session for the batch, and the number of its last request that is done."""
        self._touched.pop(remote, None)
        self._log.items.append(Answered(remote.session.id, remote.done, tuple(remote.answers)))
        remote.answers.clear()

    def answer_all(self) -> None:
        """Gathers the answers of all sessions that have new ones, or whose last request that is done has changed."""
        for remote in list(self._touched):
            self.answer(remote)
        self._touched.clear()
