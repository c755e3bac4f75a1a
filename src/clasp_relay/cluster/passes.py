"""Passes, which admit clients and are in no database; the relays of a cluster send theirs to each other.

They are tickets for URLs, and the tokens of the console. Each relay keeps those of all the others.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, get_type_hints

from clasp_relay.cluster.exchange.packets import check_fields, decode_fields, encode_fields
from clasp_relay.cluster.exchange.ports import Engine
from clasp_relay.errors import DecodeError
from clasp_relay.logs import events

__all__ = ["Passes", "share_passes"]

P = TypeVar("P", bound=tuple[Any, ...])


class Passes(Protocol[P]):
    """Passes of one kind, as a relay keeps them. Each is a NamedTuple with its digest as the first field."""

    when_given: Callable[[P], None]
    """Called with each pass that this relay issues."""

    when_ended: Callable[[bytes], None]
    """Called with the digest of each pass that ends at this relay."""

    def learn(self, given: P, /) -> None:
        """Adds a pass that another relay has issued."""

    def forget(self, digest: bytes, /) -> None:
        """Ends the pass with this digest, which has ended at another relay."""


def share_passes(passes: Passes[P], kind: Callable[..., P], engine: Engine, subject: str) -> None:
    """Sends the passes that this relay issues or ends to the other relays, and takes theirs.

    Args:
        passes: the passes of this relay.
        kind: the type of a pass, a NamedTuple.
        engine: the bus.
        subject: the subject of these messages.
    """
    own = uuid.uuid4().bytes
    kinds = tuple(get_type_hints(kind).values())

    def heard(payload: bytes) -> None:
        try:
            sender, digest, fields = decode_fields(payload, (bytes, bytes, tuple))
            if fields:
                check_fields(fields, kinds)
        except DecodeError as error:
            events.CLUSTER_MESSAGE_BAD.log(error=error.message)
            return
        if sender == own:
            return
        if fields:
            passes.learn(kind(*fields))
        else:
            passes.forget(digest)

    def given(one: P) -> None:
        engine.publish(subject, encode_fields(own, one[0], tuple(one)))

    def ended(digest: bytes) -> None:
        engine.publish(subject, encode_fields(own, digest, ()))

    engine.subscribe(subject, heard)
    passes.when_given, passes.when_ended = given, ended
