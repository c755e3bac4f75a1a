"""Incoming webhooks: what a program posts to a secret URL becomes a message in a chat room (``docs/doors.md``)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from clasp_relay.access.permissions import Bearer
from clasp_relay.access.policy.scopes import Scopes
from clasp_relay.access.refusals import BadInput, Limited, Missing, Taken
from clasp_relay.access.store_calls import StoreCalls
from clasp_relay.access.threads import Workers
from clasp_relay.access.tokens import digest_of
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.limiter import Limiter
from clasp_relay.core.state.params import Params
from clasp_relay.storage.hooks import Hook, HookStore
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Bundle, Publish
from clasp_relay.wire.values import decode_value, encode_value

__all__ = ["CHAT", "HOOK", "MAX_HOOK_NAME", "MAX_HOOK_TEXT", "Hooks", "check_hook_address"]

HOOK = "clasp.hook."
"""The prefix of the subject of a webhook; its id follows."""

CHAT = "chat"
"""The template of the chat's messages."""

MAX_HOOK_TEXT = 2_000
MAX_HOOK_NAME = 40
"""The most characters of a message, and of a name."""

PER_SECOND, BURST = 1.0, 10.0
"""The message limit of one webhook: messages a second, and at once."""

MAX_KNOWN = 10_000
"""Ids whose message limit is remembered, with or without a webhook of that id."""

_ROOM_MESSAGES = Pattern.parse("/chat/room/*/messages")
_META = "meta"
_COLOR = "#6b7280"
_NO_HOOK = "There is no such webhook."


def check_hook_address(template: str, address: str) -> None:
    """Checks that messages of a template may go to an address.

    Raises:
        ValueError: they may not.
    """
    if template == CHAT and not _ROOM_MESSAGES.matches(address):
        raise ValueError("messages of the chat go to /chat/room/ROOM/messages")


class Hooks:
    """Makes messages from what programs post.

    Args:
        store: the webhooks.
        sql: the thread that the store is called on.
        params: the params, to check whether a room exists and is encrypted.
        now_us: Unix µs.
        random_hex: as ``secrets.token_hex``.
    """

    def __init__(
        self,
        store: HookStore,
        sql: Workers,
        params: Params,
        now_us: Callable[[], int],
        random_hex: Callable[[int], str],
    ) -> None:
        self._store = store
        self._calls = StoreCalls(sql)
        self._params = params
        self._now_us = now_us
        self._random_hex = random_hex
        self._limiters: OrderedDict[bytes, Limiter] = OrderedDict()

    async def message(self, hook_id: str, text: str, name: str | None) -> tuple[Identity, Bundle]:
        """Returns the message for a post, and the identity that sends it.

        Args:
            hook_id: the id in the URL.
            text: the message's text.
            name: the name that the message shows; None for the webhook's own.

        Raises:
            Limited: too many messages.
            BadInput: text or name is too long, or empty.
            Missing: there is no such webhook, or no such room.
            Taken: the room is encrypted, so that nothing can be sent there in clear.
        """
        digest = digest_of(hook_id)
        if not self._limiter(digest).take(1, self._now_us()):
            raise Limited("This webhook sends too many messages. Try again in a second.", 1)
        if not 0 < len(text.strip()) <= MAX_HOOK_TEXT:
            raise BadInput(f"A text has 1 to {MAX_HOOK_TEXT} characters.")
        if name is not None and not (0 < len(name.strip()) <= MAX_HOOK_NAME and name.isprintable()):
            raise BadInput(f"A name has 1 to {MAX_HOOK_NAME} characters, none of them a control character.")
        hook = await self._calls.run(self._store.find, digest)
        if hook is None:
            raise Missing(_NO_HOOK)
        self._check_room(hook.address)
        value = encode_value(self._chat_message(hook, text, name or hook.name))
        who = Bearer(HOOK + hook.id, scopes=Scopes.parse((f"admin:{hook.address}",)))
        return who, Bundle((Publish(hook.address, value=value),))

    def _limiter(self, digest: bytes) -> Limiter:
        found = self._limiters.get(digest)
        if found is None:
            found = self._limiters[digest] = Limiter(PER_SECOND, BURST, self._now_us())
            if len(self._limiters) > MAX_KNOWN:
                self._limiters.popitem(last=False)
        self._limiters.move_to_end(digest)
        return found

    def _check_room(self, address: str) -> None:
        meta = self._params.get(f"{address.rpartition('/')[0]}/{_META}")
        about = None if meta is None else decode_value(meta.value)
        if not isinstance(about, dict):
            raise Missing("The room of this webhook does not exist.")
        if about.get("encrypted"):
            raise Taken("The room is encrypted, and a webhook has no key: it cannot send anything there.")

    def _chat_message(self, hook: Hook, text: str, name: str) -> dict[str, Any]:
        subject = HOOK + hook.id
        return {
            "type": "text",
            "from": f"{name.strip()} (bot)",
            "fromId": subject,
            "userId": subject,
            "msgId": f"hook-{self._random_hex(16)}",
            "text": text,
            "timestamp": self._now_us() // 1000,
            "avatarColor": _COLOR,
        }
