"""The image of a running relay, with which another one begins: the state that the log no longer has, or never had.

It consists of the same changes as the log: a param is a write, a tombstone a null. A relay that has the params on its
own disk gets the rest: sessions, locks, announced signals.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack

from clasp_relay.cluster.exchange.batches import Began, Willed
from clasp_relay.cluster.exchange.ledger import Known, Ledger
from clasp_relay.core.records import Change, Ended, Param, StateImage, decode_change, encode_change
from clasp_relay.core.relay import Relay
from clasp_relay.core.state.params import Params
from clasp_relay.errors import DecodeError
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.messages import NULL, Announce

__all__ = ["Image", "capture", "decode_image", "encode_image", "install"]

VERSION = 1

PIECE_BYTES = 256 * 1024
"""Approximate size of a piece, which is one message on the bus."""

ENCODED_AT_ONCE = 500
"""How many records are encoded before the event loop goes on."""


class Image(NamedTuple):
    """See the module. All of it is of one moment, between two batches."""

    seq: int
    digest: bytes
    epoch: int
    time_us: int
    journal_seq: int
    decider: str
    decider_name: str
    links: dict[str, str]
    sessions: list[tuple[Began, int]]
    locks: list[tuple[str, str, int]]
    signals: list[tuple[bytes, int, str]]
    """Each announced signal as an ANNOUNCE of its own, when it was announced, and the subject that it counts for."""
    state: StateImage | None
    """None for a relay that has the params."""
    tail: list[Change]
    """The rows of the journal that a relay with an older state lacks."""
    accounts: list[bytes]
    """The pieces of all accounts, for a relay that has none; see ``account_images``."""
    wills: tuple[Willed, ...] = ()
    """The wills of sessions."""


def capture(relay: Relay, ledger: Ledger, journal_seq: int, *, with_state: bool) -> Image:
    """Captures a relay, by reference, between two batches."""
    state = None
    if with_state:
        state = relay.params.image()._replace(scheduled=relay.schedule.image(), journal_seq=journal_seq)
    return Image(
        ledger.seq,
        ledger.digest,
        ledger.epoch,
        ledger.time_us,
        journal_seq,
        ledger.decider,
        ledger.decider_name,
        dict(ledger.links),
        [(known.began, known.number) for known in ledger.sessions.values()],
        relay.params.locks.all(),
        [(encode(Announce("", (each,))), when_us, owner) for each, when_us, owner in relay.signals.all()],
        state,
        [],
        [],
        tuple(known.will for known in ledger.sessions.values() if known.will is not None),
    )


def install(image: Image, relay: Relay, ledger: Ledger) -> None:
    """Installs an image in a relay; if the image has params, the relay must have none."""
    ledger.seq, ledger.digest, ledger.epoch, ledger.time_us = image.seq, image.digest, image.epoch, image.time_us
    ledger.decider, ledger.decider_name = image.decider, image.decider_name
    ledger.links = dict(image.links)
    ledger.sessions = {began.session_id: Known(began, number) for began, number in image.sessions}
    for will in image.wills:
        ledger.note(will)
    if image.state is not None:
        relay.params.load(image.state)
        for change in image.state.scheduled:
            relay.committer.restore(change)
    relay.params.load_locks(image.locks)
    for data, announced_us, owner in image.signals:
        message = decode(data)
        assert isinstance(message, Announce), "announced something else"
        relay.signals.register(message.signals, announced_us, owner)


def encode_image(image: Image) -> Iterator[bytes | None]:
    """Yields the pieces of an image, and None where the event loop should go on."""
    state = image.state
    head = image[:8]
    records = _records(image)
    packed: list[object] = [(0, VERSION, head, state is not None)]
    size_bytes = 0
    for count, record in enumerate(records, 1):
        packed.append(record)
        size_bytes += 50 + sum(len(field) for field in record if isinstance(field, bytes | str))
        if size_bytes >= PIECE_BYTES:
            yield _pack(packed)
            packed, size_bytes = [], 0
        elif count % ENCODED_AT_ONCE == 0:
            yield None
    yield _pack(packed)


def decode_image(pieces: list[bytes]) -> Image:
    """Decodes the pieces of an image.

    Raises:
        DecodeError: the pieces are not one image, or of another version.
    """
    try:
        records = [record for piece in pieces for record in msgpack.unpackb(zlib.decompress(piece), use_list=False)]
        (kind, version, head, has_state), *rest = records
        if kind != 0 or version != VERSION:
            raise DecodeError(f"an image of version {version!r}, this relay reads version {VERSION}")
        seq, digest, epoch, time_us, journal_seq, decider, decider_name, links = head
        state = StateImage([], [], {}, journal_seq) if has_state else None
        image = Image(seq, digest, epoch, time_us, journal_seq, decider, decider_name, links, [], [], [], state, [], [])
        image = image._replace(wills=tuple(Willed(*record[1:]) for record in rest if record[0] == _WILL))
        scheduled: list[Change] = []
        for record in rest:
            if record[0] != _WILL:
                _put(image, scheduled, record)
    except (ValueError, TypeError, IndexError, zlib.error, msgpack.UnpackException) as error:
        raise DecodeError(f"the image is damaged: {error}") from None
    if image.state is None:
        return image
    return image._replace(state=image.state._replace(scheduled=tuple(scheduled)))


_SESSION, _LOCK, _SIGNAL, _PARAM, _ENDED, _SCHEDULED, _ROW, _ACCOUNTS, _WILL = range(1, 10)


def _records(image: Image) -> Iterator[tuple[Any, ...]]:
    for began, number in image.sessions:
        yield (_SESSION, *began, number)
    for will in image.wills:
        yield (_WILL, *will)
    for lock in image.locks:
        yield (_LOCK, *lock)
    for signal in image.signals:
        yield (_SIGNAL, *signal)
    for change in image.tail:
        yield _ROW, encode_change(change)
    for piece in image.accounts:
        yield _ACCOUNTS, piece
    state = image.state
    if state is None:
        return
    for param in state.params:
        yield _PARAM, encode_change(Change(param, due_us=state.expires_us.get(param.address)))
    for address, ended in state.ended:
        null = Param(address, NULL, ended.revision, "", ended.when_us, None, ended.subject)
        yield _ENDED, encode_change(Change(null, stamp=ended.stamp))
    for change in state.scheduled:
        yield _SCHEDULED, encode_change(change)


def _put(image: Image, scheduled: list[Change], record: tuple[Any, ...]) -> None:
    kind, *fields = record
    if kind == _SESSION:
        image.sessions.append((Began(*fields[:-1]), fields[-1]))
    elif kind == _LOCK:
        image.locks.append((fields[0], fields[1], fields[2]))
    elif kind == _SIGNAL:
        image.signals.append((fields[0], fields[1], fields[2]))
    elif kind == _ROW:
        image.tail.append(decode_change(fields[0]))
    elif kind == _ACCOUNTS:
        image.accounts.append(fields[0])
    else:
        if image.state is None:
            raise DecodeError("the image is damaged: it has params that it does not announce")
        _put_state(image.state, scheduled, kind, decode_change(fields[0]))


def _put_state(state: StateImage, scheduled: list[Change], kind: int, change: Change) -> None:
    param = change.param
    if kind == _PARAM:
        state.params.append(param)
        if change.due_us is not None:
            state.expires_us[param.address] = change.due_us
    elif kind == _ENDED:
        assert isinstance(state.ended, list), "the state of an image that is read has a list"
        state.ended.append((param.address, Ended(param.revision, param.timestamp_us, param.subject, change.stamp)))
    elif kind == _SCHEDULED:
        scheduled.append(change)
    else:
        raise DecodeError("the image is damaged: it has a record of an unknown kind")


def _pack(records: list[object]) -> bytes:
    packed: bytes = msgpack.packb(records)
    return zlib.compress(packed, 1)


def is_empty(params: Params) -> bool:
    """Tells whether no param was ever set."""
    return not len(params) and not params.image().ended
