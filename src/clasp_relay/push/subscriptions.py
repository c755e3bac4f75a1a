"""The push subscriptions of browsers: stored in ``users.db``, and kept in memory for look-ups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from clasp_relay.access.refusals import BadInput, Busy, Refusal
from clasp_relay.access.store_calls import StoreCalls
from clasp_relay.access.threads import Workers, uncancellable
from clasp_relay.access.tokens import TokenRecord
from clasp_relay.push.destinations import ForbiddenPlaceError, Places, place_of
from clasp_relay.push.encryption import AUTH_BYTES, check_public_key, decode_base64url
from clasp_relay.storage.push_subscriptions import PushStore, Subscription

__all__ = ["MAX_PER_SUBJECT", "MAX_SUBSCRIPTIONS", "Subscriptions"]

MAX_PER_SUBJECT = 10
"""Maximum number of browsers of one subject; beyond it the oldest is removed."""

MAX_SUBSCRIPTIONS = 20_000
"""Maximum number of browsers in all, about 20 MB."""

GUESTS_SHARE = 0.5
"""The share of ``MAX_SUBSCRIPTIONS`` that guests may have, so that made-up guests do not keep users out."""

MAX_PER_GUEST_ADDRESS = 200
"""Maximum number of browsers of all guests of one client address."""

_MAX_KEY = 200


def _holds() -> None:
    """Does nothing: the token is still valid."""


class Subscriptions:
    """The browsers of each subject.

    Args:
        places: checks whether the relay may send to a push service.
        now_s: Unix seconds.
    """

    def __init__(self, places: Places, now_s: Callable[[], float]) -> None:
        self._places = places
        self._now_s = now_s
        self._store: PushStore | None = None
        self._calls: StoreCalls | None = None
        self.changed: Callable[[], None] = lambda: None
        """Called when the first subscription is added, and when the last one is removed."""
        self._by_endpoint: dict[str, Subscription] = {}
        self._of: dict[str, dict[str, Subscription]] = {}
        self._guests: dict[str, bytes] = {}
        """The client address that a guest's token was made for, by endpoint."""
        self._by_address: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._by_endpoint)

    def open(self, store: PushStore, sql: Workers) -> None:
        """Loads all; it calls the store on this thread, so before the event loop runs.

        Args:
            store: where they are kept.
            sql: the thread that the store is called on from then on.
        """
        self._store, self._calls = store, StoreCalls(sql)
        guests = store.guests()
        for subscription in store.all():
            self._note(subscription, guests.get(subscription.subject))

    async def reload(self) -> None:
        """Loads everything from the store; memory is empty before.

        Raises:
            Refusal: the store cannot be asked now.
        """
        store, calls = self._opened()
        guests = await calls.run(store.guests)
        for subscription in await calls.run(store.all):
            self.follow(subscription, guests.get(subscription.subject))

    def follow(self, subscription: Subscription, guest_address: bytes | None) -> None:
        """Adds a browser that is in the store; it may have subscribed at another relay of the cluster.

        Args:
            subscription: the browser.
            guest_address: a keyed hash of the guest's client address; None for a user.
        """
        if self._by_endpoint.get(subscription.endpoint) != subscription:
            self._forget(subscription.endpoint)
            self._note(subscription, guest_address)

    def follow_end(self, endpoint: str) -> None:
        """Removes a browser that is no longer in the store."""
        self._forget(endpoint)

    def has_any(self, subject: str) -> bool:
        """Tells whether a subject has a subscribed browser."""
        return subject in self._of

    def of(self, subject: str) -> list[Subscription]:
        """Returns the browsers of a subject."""
        return list(self._of.get(subject, {}).values())

    def lane_of(self, subscription: Subscription) -> Hashable:
        """Returns the lane of a browser: the subject of a user, the hashed client address of a guest."""
        return self._guests.get(subscription.endpoint) or subscription.subject

    def add(
        self,
        record: TokenRecord,
        endpoint: str,
        p256dh: str,
        auth: str,
        lane: str,
        still_holds: Callable[[], object] = _holds,
    ) -> Deferred[None]:
        """Adds a browser.

        Args:
            record: the token that it signed in with.
            endpoint: the URL of its push service.
            p256dh: its public key, in base64url.
            auth: its secret, likewise.
            lane: the client's address, as the lane of the look-up of the host.
            still_holds: raises a Refusal if the token has ended meanwhile.

        Raises:
            BadInput: the keys are not valid.

        Returns:
            a Deferred. If it is cancelled, a new browser is afterwards neither in memory nor in the store. It fails
            with BadInput if the relay does not send to that push service, with Busy if there are too many browsers or
            the store cannot be reached, and with what ``still_holds`` raises.
        """
        gone: list[Failure] = []

        def note(failure: Failure) -> Failure:
            if failure.check(CancelledError):
                gone.append(failure)
            return failure

        work = Deferred.fromCoroutine(self._add(record, endpoint, _key(p256dh, auth), lane, still_holds, gone))
        return uncancellable(work).addErrback(note)

    async def _add(
        self,
        record: TokenRecord,
        endpoint: str,
        keys: tuple[bytes, bytes],
        lane: str,
        still_holds: Callable[[], object],
        gone: Sequence[Failure],
    ) -> None:
        try:
            await self._places.addresses(place_of(endpoint), lane)
        except ForbiddenPlaceError as error:
            raise BadInput(str(error)) from None
        if gone:
            return
        still_holds()  # the client's name server may have delayed the look-up
        before = self._by_endpoint.get(endpoint)
        if before is None:
            self._check_room(record)
        sign_in = record.sign_in or record.digest
        subscription = Subscription(endpoint, record.subject, *keys, sign_in, int(self._now_s()))
        store, calls = self._opened()
        await calls.run(store.add, subscription)
        self._forget(endpoint)
        self._note(subscription, record.made_for if record.guest else None)
        if gone and (before is None or before.subject != record.subject):
            await self._remove([endpoint])
            return
        try:
            still_holds()
        except Refusal:
            await self._remove([endpoint])
            raise
        mine = self._of[record.subject]
        await self._remove(list(mine)[: max(0, len(mine) - MAX_PER_SUBJECT)])

    def _check_room(self, record: TokenRecord) -> None:
        if record.guest:
            if record.made_for and self._by_address[record.made_for] >= MAX_PER_GUEST_ADDRESS:
                raise Busy("Too many guests at your address get push messages. Try again another day.", 86_400)
            if len(self._guests) >= MAX_SUBSCRIPTIONS * GUESTS_SHARE:
                raise Busy("Too many guests get push messages from this relay. Try again another day.", 86_400)
        if len(self._by_endpoint) >= MAX_SUBSCRIPTIONS:
            raise Busy("Too many browsers get push messages from this relay. Try again another day.", 86_400)

    def remove(self, subject: str, endpoint: str | None) -> Deferred[None]:
        """Removes a browser of a subject, or all if ``endpoint`` is None; the work goes on when it is cancelled."""
        mine = self._of.get(subject, {})
        work = self._remove([each for each in mine if endpoint in (None, each)])
        return uncancellable(Deferred.fromCoroutine(work))

    def registered(self, subject: str) -> None:
        """Counts a guest's browsers as a user's from now on."""
        for endpoint in self._of.get(subject, {}):
            self._is_guests_no_more(endpoint)

    async def gone(self, subscription: Subscription) -> None:
        """Removes a browser that its push service reports as gone, unless it has subscribed again."""
        if self._by_endpoint.get(subscription.endpoint) == subscription:
            await self._remove([subscription.endpoint])

    async def signed_out(self, record: TokenRecord) -> None:
        """Removes the browsers of a sign-in that was revoked."""
        sign_in = record.sign_in or record.digest
        await self._remove([each.endpoint for each in self.of(record.subject) if each.sign_in == sign_in])

    async def purge(self) -> None:
        """Removes the browsers of subjects without an account or a stored token; to be called every hour."""
        store, calls = self._opened()
        try:
            await self._remove(await calls.run(store.forgotten))
        except Busy:
            return  # the next attempt is in an hour

    async def _remove(self, endpoints: list[str]) -> None:
        if not endpoints:
            return
        for endpoint in endpoints:
            self._forget(endpoint)
        store, calls = self._opened()
        await calls.run(store.remove, endpoints)

    def _opened(self) -> tuple[PushStore, StoreCalls]:
        assert self._store is not None, "used before it was opened"
        assert self._calls is not None, "used before it was opened"
        return self._store, self._calls

    def _note(self, subscription: Subscription, guest_address: bytes | None) -> None:
        if guest_address is not None:
            self._guests[subscription.endpoint] = guest_address
            self._by_address[guest_address] += 1
        is_first = not self._by_endpoint
        self._by_endpoint[subscription.endpoint] = subscription
        self._of.setdefault(subscription.subject, {})[subscription.endpoint] = subscription
        if is_first:
            self.changed()

    def _forget(self, endpoint: str) -> None:
        subscription = self._by_endpoint.pop(endpoint, None)
        if subscription is None:
            return
        self._is_guests_no_more(endpoint)
        mine = self._of[subscription.subject]
        del mine[endpoint]
        if not mine:
            del self._of[subscription.subject]
        if not self._by_endpoint:
            self.changed()

    def _is_guests_no_more(self, endpoint: str) -> None:
        guest_address = self._guests.pop(endpoint, None)
        if guest_address is not None:
            self._by_address -= Counter([guest_address])


def _key(p256dh: str, auth: str) -> tuple[bytes, bytes]:
    """Decodes a browser's public key and its secret.

    Raises:
        BadInput: they are not valid.
    """
    try:
        if len(p256dh) > _MAX_KEY or len(auth) > _MAX_KEY:
            raise ValueError
        key, secret = decode_base64url(p256dh), decode_base64url(auth)
        check_public_key(key)
        if len(secret) != AUTH_BYTES:
            raise ValueError
    except ValueError:
        raise BadInput("The keys of the subscription are not valid.") from None
    return key, secret
