"""Device tokens: made by the operator in ``users.db``, and loaded by the running relay."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from clasp_relay.access.names import check_user_id
from clasp_relay.access.policy.scopes import Scopes, check_template, expand
from clasp_relay.access.refusals import Busy
from clasp_relay.access.store_calls import StoreCalls
from clasp_relay.access.threads import Workers
from clasp_relay.access.tokens import OWN_SCOPES, TokenRecord, TokenTable, digest_of, make_token
from clasp_relay.logs import events
from clasp_relay.storage.devices import DeviceStore, DeviceToken

__all__ = ["DEVICE", "DeviceWatch", "device_record", "is_sound", "make_device", "parse_scopes"]

DEVICE = "clasp.device."
"""The prefix of the subject of a device token for which the operator names none; its id follows."""

_BETWEEN_SCOPES = re.compile(r"\s*,\s*(?=[a-z]+:)")
"""A comma before an action; other commas may be part of a pattern."""


def parse_scopes(text: str) -> tuple[str, ...]:
    """Returns the scopes in a text, such as ``read:/a/**,write:/a/*``.

    Raises:
        ValueError: one of them is no scope.
    """
    scopes = tuple(_BETWEEN_SCOPES.split(text.strip()))
    for scope in scopes:
        try:
            check_template(scope)
        except ValueError as error:
            raise ValueError(f"{scope!r}: {error}") from None
    return scopes


def make_device(
    store: DeviceStore,
    scopes: Sequence[str],
    subject: str | None,
    name: str,
    now_s: int,
    expires_s: int | None,
    random_hex: Callable[[int], str],
) -> tuple[str, DeviceToken]:
    """Makes a device token and stores it; blocks.

    Args:
        store: where it is stored.
        scopes: as ``parse_scopes`` returns them; ``{userId}`` is replaced by the subject.
        subject: an account's, another device's, or a new one; None for a new one with the prefix ``DEVICE``.
        name: a name for people.
        now_s: Unix seconds.
        expires_s: Unix seconds; None for never.
        random_hex: as ``secrets.token_hex``.

    Returns:
        the token, which is in clear nowhere else, and what was stored.

    Raises:
        BadInput: the subject is no id.
        IdentityTaken: the subject is a guest's.
    """
    token, token_id = make_token(random_hex), random_hex(4)
    is_own = subject is None
    if subject is None:
        subject = DEVICE + token_id
    elif subject not in {each.subject for each in store.all()}:
        check_user_id(subject)
    granted = expand(scopes, subject)
    device = DeviceToken(token_id, digest_of(token), subject, name, granted, now_s, expires_s)
    store.add(device, is_own_subject=is_own)
    return token, device


def device_record(device: DeviceToken) -> TokenRecord:
    """Returns the record of a device token."""
    name = device.name or device.subject
    return TokenRecord(
        device.digest, device.subject, name, False, OWN_SCOPES, device.created_s, device.expires_s, scopes=device.scopes
    )


class DeviceWatch:
    """Updates the table of valid tokens with the device tokens in the file.

    Args:
        store: where the operator makes and revokes device tokens.
        sql: the thread that the store is called on.
        tokens: the table.
    """

    def __init__(self, store: DeviceStore, sql: Workers, tokens: TokenTable) -> None:
        self._store = store
        self._calls = StoreCalls(sql)
        self._tokens = tokens
        self._ahead = 0
        """In a cluster: how many device tokens were followed and are not updated in the file yet."""

    def load(self) -> None:
        """Loads all device tokens; calls the store on this thread, so before the event loop runs."""
        self._take(self._store.changed())

    async def look(self) -> bool:
        """Loads the device tokens if another process has changed the file; a busy relay does so the next time.

        Returns:
            whether another process has changed the file.
        """
        try:
            devices = await self._calls.run(self._store.changed)
        except Busy:
            return False
        self._take(devices)
        return devices is not None

    async def reload(self) -> None:
        """Loads the device tokens after a change by this process.

        Raises:
            Refusal: the store cannot be asked now.
        """
        self._take(await self._calls.run(self._store.all))

    def follow(self, device: DeviceToken, *, is_revoked: bool) -> None:
        """Takes over a device token from the log of a cluster, before the file is updated.

        Args:
            device: the token.
            is_revoked: whether it is revoked.
        """
        self._ahead += 1
        record = device_record(device)
        if is_sound(record):
            self._tokens.follow_device(record, is_revoked=is_revoked)

    def written(self, count: int) -> None:
        """Notes how many of the followed tokens were written to the file; ``reload`` has to be called then."""
        self._ahead -= count

    def _take(self, devices: Sequence[DeviceToken] | None) -> None:
        # Results come in the order of the calls: one that was read before the file had all followed tokens would undo
        # some of them.
        if devices is None or self._ahead:
            return
        new, revoked = self._tokens.set_devices(filter(is_sound, map(device_record, devices)))
        if new or revoked:
            events.TOKEN_DEVICES.log(count=len(devices), new=new, revoked=revoked)


def is_sound(record: TokenRecord) -> bool:
    """Tells whether the scopes in the file are valid; a token with others is not admitted."""
    try:
        Scopes.parse(record.scopes)
    except ValueError:
        events.TOKEN_UNREADABLE.log(subject=record.subject)
        return False
    return True
