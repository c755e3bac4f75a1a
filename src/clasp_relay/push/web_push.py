"""Assembles Web Push: the subscriptions, the notices, and the sender."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from clasp_relay.access.refusals import Busy
from clasp_relay.access.store_calls import StoreCalls
from clasp_relay.access.threads import ThreadWorkers, Workers
from clasp_relay.access.tokens import EndOfToken, TokenRecord
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.identity import Identity
from clasp_relay.logs import events
from clasp_relay.push.chat import ChatNotices
from clasp_relay.push.destinations import LookUps, Places, Trust, make_agent
from clasp_relay.push.encryption import Vapid, make_vapid_key
from clasp_relay.push.sender import MAX_WAITING, Notice, Sender
from clasp_relay.push.subscriptions import Subscriptions
from clasp_relay.settings import Settings
from clasp_relay.storage.push_subscriptions import PushStore, Subscription

__all__ = ["WebPush"]


class WebPush:
    """Tells browsers of messages and calls while no page of the chat is open and visible.

    Args:
        settings: the settings.
        reactor: the reactor.
        relay: the core.
        identity: the identity that it subscribes to messages with.
        may_enter: tells whether a subject (the second argument) may enter a room, and so read it.
        trust: the certificate authorities of push services; by default the machine's.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        relay: Relay,
        identity: Identity,
        may_enter: Callable[[str, str], bool],
        trust: Trust = SSL.Context.set_default_verify_paths,
    ) -> None:
        # Look-ups of its own, since subscribers may name hosts whose name servers do not answer; sending does not wait
        # for these.
        self.subscriptions = Subscriptions(Places(LookUps(reactor).resolve, settings.push_allow), time.time)
        """The browsers."""
        self._contact = settings.push_contact or ""
        self._reactor = reactor
        self._agent = make_agent(reactor, Places(LookUps(reactor).resolve, settings.push_allow), trust)
        self._workers = ThreadWorkers(reactor, 1, MAX_WAITING, "push")
        self._notices = ChatNotices(relay, identity, self.subscriptions, may_enter, self._send)
        self._vapid: Vapid | None = None
        self._sender: Sender | None = None
        self._store: PushStore | None = None
        self._calls: StoreCalls | None = None
        self._is_started = False
        self._is_acting = False

    @property
    def public_key(self) -> str:
        """The public key in base64url, which a page passes to its browser as ``applicationServerKey``."""
        assert self._vapid is not None, "asked before it was opened"
        return self._vapid.public_key

    @property
    def outcomes(self) -> Counter[str]:
        """Number of messages since the start, by outcome."""
        return Counter() if self._sender is None else self._sender.outcomes

    @property
    def waiting(self) -> int:
        """Number of messages that are queued or being sent."""
        return 0 if self._sender is None else self._sender.waiting

    def open(self, store: PushStore, sql: Workers) -> None:
        """Loads keys and subscriptions; it calls the store on this thread, so before the event loop runs.

        Args:
            store: where they are kept.
            sql: the thread that the store is called on from then on.
        """
        self.take_key(store.key(make_vapid_key))
        self._store, self._calls = store, StoreCalls(sql)
        self.subscriptions.open(store, sql)

    async def reload(self) -> None:
        """Loads the keys and subscriptions from the store again.

        Raises:
            Refusal: the store cannot be read now.
        """
        assert self._calls is not None, "used before it was opened"
        assert self._store is not None, "used before it was opened"
        self.take_key(await self._calls.run(self._store.key, make_vapid_key))
        await self.subscriptions.reload()

    def take_key(self, private_key: bytes) -> None:
        """Sets the key by which push services know this relay."""
        self._vapid = Vapid(private_key, self._contact, time.time)
        if self._sender is None:
            self._sender = Sender(
                self._reactor, self._agent, self._vapid, self._workers, self._gone, self.subscriptions.lane_of
            )
        else:
            self._sender.vapid = self._vapid

    def start(self) -> None:
        """Begins to send notices, unless another relay of the cluster does; the state must be loaded."""
        self._workers.start()
        self._is_started = True
        self.subscriptions.changed = self._follow
        self._follow()
        events.PUSH_READY.log(count=len(self.subscriptions))
        if not self._contact:
            events.PUSH_NO_CONTACT.log()

    def stop(self) -> None:
        """Stops sending notices, and cancels the current requests."""
        self._is_started = False
        self._notices.close()
        if self._sender is not None:
            self._sender.close()
        self._workers.stop()

    def acts(self, is_acting: bool) -> None:
        """Sets whether this relay sends notices: in a cluster only the decider does."""
        self._is_acting = is_acting
        self._follow()

    def _follow(self) -> None:
        """Watches rooms only while there are subscriptions, since watching costs time for each message."""
        if self._is_started and self._is_acting and len(self.subscriptions):
            self._notices.open()
        else:
            self._notices.close()

    def token_ended(self, record: TokenRecord, why: EndOfToken) -> None:
        """Removes the browsers of a sign-in that was revoked."""
        if why is EndOfToken.REVOKED:
            _run(self.subscriptions.signed_out(record))

    def _send(self, subscription: Subscription, notice: Notice) -> None:
        if self._sender is not None:
            self._sender.send(subscription, notice)

    def _gone(self, subscription: Subscription) -> None:
        _run(self.subscriptions.gone(subscription))


def _run(work: Coroutine[Deferred[Any], Any, None]) -> None:
    """Runs a removal that nothing waits for. If it fails, the removed browser is loaded again at a restart."""
    Deferred.fromCoroutine(work).addErrback(_tell)


def _tell(failure: Failure) -> None:
    if failure.check(Busy) is None:
        events.PUSH_FAULT.failure(failure)
