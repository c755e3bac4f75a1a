"""Makes the relay from its parts (``assembly``); ``assembly.lifecycle`` starts and stops it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

from clasp_relay.access.addresses import ClientAddresses, address_group, is_in_networks
from clasp_relay.access.permissions import EXPIRED, REVOKED, Bearer, TokenPermissions
from clasp_relay.access.policy import Policy
from clasp_relay.access.policy.history_rules import HistoryRules
from clasp_relay.access.policy.scopes import Scopes
from clasp_relay.access.policy_choice import choose_history, choose_policy
from clasp_relay.access.secret_files import ADMIN_SUBJECT, read_turn_secret
from clasp_relay.access.session_ids import SessionIdsOfAll
from clasp_relay.access.tokens import EndOfToken, TokenRecord, TokenTable
from clasp_relay.access.turn_server import TurnServer
from clasp_relay.assembly.auth_server import AuthServer, Rights, Tells
from clasp_relay.assembly.auth_site import Clients, Core
from clasp_relay.assembly.doors import ADMIN_SCOPES, make_doors
from clasp_relay.assembly.lifecycle import RelayService
from clasp_relay.clock import ReactorClock
from clasp_relay.core.fanout.waiting import ENTRY_BYTES
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.history.memory import MemoryHistory
from clasp_relay.core.ports import Clock, FanOut, Log
from clasp_relay.core.relay import Handler, Relay, RelayOptions
from clasp_relay.core.rights.port import OpenPermissions
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.core.state.shares import ShareLimits
from clasp_relay.errors import StartError
from clasp_relay.http.cors import Origins
from clasp_relay.logs import events
from clasp_relay.logs.levels import LogLevels
from clasp_relay.logs.relay_log import RelayLog
from clasp_relay.net.admission import NetLimits
from clasp_relay.net.turn import TurnWriter
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.push.web_push import WebPush
from clasp_relay.rules.call_places import CallPlaces
from clasp_relay.settings import Settings
from clasp_relay.storage.journal.history_reader import HistoryReader
from clasp_relay.storage.journal.journal_log import JournalLog
from clasp_relay.wire.messages import Message
from clasp_relay.wire.values import encode_value

if TYPE_CHECKING:
    from clasp_relay.assembly.cluster import ClusterParts

MESSAGES_PER_SECOND = 30.0
"""Default message rate of one session of a relay with accounts, in messages per second."""

SHARE_FACTOR = 4
"""The share of a client address, in shares of one user: enough for a family."""

BURST_FACTOR = 4
"""The burst of messages that a session may send, in seconds of its message rate."""


_WATCHER = Bearer(scopes=Scopes.parse(ADMIN_SCOPES))
"""The identity with which the relay itself subscribes to params."""

_EMPTY_MAP = encode_value({})

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
"""Hosts at which only this machine can connect, so that the addresses of clients do not differ."""


def make_service(settings: Settings, reactor: Any) -> RelayService:
    """Builds a relay; no port, folder or state is opened before the service starts.

    Args:
        settings: the settings.
        reactor: the reactor that will run it.

    Returns:
        A service to start alone or as part of an application. Its start raises ``errors.StartError``, with
        one line for the operator, when a port, a folder or a file cannot be used.

    Raises:
        StartError: the application policy cannot be used.
    """
    writer = TurnWriter(reactor)
    clock = ReactorClock(reactor)
    log = RelayLog(LogLevels.parse(settings.log_level), clock)
    origins = Origins(settings.cors_origins)
    policy = None if settings.is_open_mode else _policy(settings)
    journal = _journal(settings, reactor, policy)
    history = _history(settings, policy)
    cluster = _cluster(settings, reactor, journal)
    core_clock = clock if cluster is None else cluster.clock(clock)
    handlers = HANDLERS if cluster is None else cluster.handlers()
    claims = None if cluster is None else cluster.claims
    reader = None if history is None or journal is None else HistoryReader(reactor, journal, history, core_clock.now_us)
    if cluster is not None:
        cluster.take_reader(reader)
    addresses = ClientAddresses(settings.trusted_proxies)
    if origins.any:
        events.ORIGINS_UNLIMITED.log()
    if settings.is_open_mode:
        relay = _relay(settings, core_clock, writer, OpenPermissions(), None, log, journal, history, reader, handlers)
        factory = _factory(settings, reactor, relay, writer, origins, addresses, log)
        doors = make_doors(settings, reactor, relay, factory, log, claims=claims)
        if cluster is not None:
            cluster.attach(relay, partial(_decider, settings, history, None, None))
            cluster.take_doors(doors)
        return RelayService(settings, reactor, relay, factory, None, log, clock, journal, doors, reader, cluster)
    tokens = TokenTable(reactor, time.time, max_per_guest_address=settings.max_guest_tokens_per_address)
    permissions = TokenPermissions(tokens, policy, core_clock.now_us)
    rate = _message_rate(settings, policy)
    relay = _relay(settings, core_clock, writer, permissions, rate, log, journal, history, reader, handlers)
    _watch_tokens(tokens, relay, cluster)
    factory = _factory(settings, reactor, relay, writer, origins, addresses, log)
    calls = () if policy is None else policy.document.calls
    places = CallPlaces(relay, calls, _WATCHER, is_alone=cluster is None)
    turn = _turn(settings, _may_do_all if policy is None else places.holds)
    may_enter = partial(_may_enter, permissions, relay.params)
    push = None if settings.push == "off" else WebPush(settings, reactor, relay, _WATCHER, may_enter)
    auth = AuthServer(
        settings,
        reactor,
        Rights(tokens, permissions, policy),
        Clients(origins, addresses),
        Core(relay, factory),
        Tells(log.signed, log.door_refused),
        turn,
        push,
        clear=None if cluster is None else cluster.clear,
        shared=None if cluster is None else cluster.accounts,
        objects=None if cluster is None else cluster.objects,
    )
    relay.hooks.origin_of = auth.origin_of
    doors = (*make_doors(settings, reactor, relay, factory, log, auth.sign_in, claims), places)
    if cluster is not None:
        cluster.attach(relay, partial(_decider, settings, history, tokens, policy))
        cluster.take_doors((*doors, auth))
        auth.site.member = cluster.member
        cluster.take_passes(lambda: auth.tickets, lambda: auth.console)
    return RelayService(settings, reactor, relay, factory, auth, log, clock, journal, doors, reader, cluster)


def _watch_tokens(tokens: TokenTable, relay: Relay, cluster: ClusterParts | None) -> None:
    """Ends sessions with their tokens, or replaces their tokens, at once: in both cores if this relay decides."""

    def decides() -> Relay | None:
        return None if cluster is None else cluster.core

    def end(record: TokenRecord, why: EndOfToken) -> None:
        for each in (relay, decides()):
            if each is not None:
                each.end_token(record.subject, record.digest, EXPIRED if why is EndOfToken.EXPIRED else REVOKED)

    def replace_token(subject: str, old: bytes, new: bytes) -> None:
        for session in relay.sessions.of_token(subject, old):
            session.identity = replace(session.identity, token=new)
        if cluster is not None:
            cluster.pass_sessions(subject, old, new)

    if cluster is not None:
        cluster.watch_tokens(tokens.knows)
    tokens.on_end(end)
    tokens.on_replace(replace_token)
    tokens.tokens_in_use = lambda subject: {
        each.identity.token for each in (decides() or relay).sessions.of_subject(subject)
    }


def _journal(settings: Settings, reactor: Any, policy: Policy | None) -> JournalLog | None:
    if not settings.writes_journal:
        return None
    return JournalLog(
        reactor,
        _never if policy is None else policy.ends_soon,
        min_free_bytes=settings.min_free_bytes,
        max_bytes=settings.journal_max_bytes,
    )


def _history(settings: Settings, policy: Policy | None) -> HistoryRules | None:
    """Returns the history rules; None for none."""
    if not settings.keeps_entries:
        return None
    history = choose_history(policy, settings.history, by_name=settings.asks_for_journal)
    if history is not None:
        events.HISTORY_IN_FORCE.log(paths=", ".join(entry.path.text for entry in history.entries))
    return history


def _turn(settings: Settings, holds_place: Callable[[str], bool]) -> TurnServer:
    secret = "" if settings.turn_secret is None else read_turn_secret(settings.turn_secret)
    return TurnServer(settings.turn_urls, secret, holds_place, time.time)


def _may_enter(permissions: TokenPermissions, params: Params, room: str, subject: str) -> bool:
    """Tells whether a subject may enter a room of the chat, and so read its messages."""
    return permissions.may_set(subject, f"/chat/room/{room}/presence/{subject}", _EMPTY_MAP, params)


def _may_do_all(_subject: str) -> bool:
    """Returns True: without a policy every token may do everything."""
    return True


def _never(_address: str) -> bool:
    return False


def _policy(settings: Settings) -> Policy | None:
    policy, why = choose_policy(settings.app_config)
    events.POLICY_LOADED.log(policy=why)
    if policy is None:
        events.POLICY_MISSING.log()
    else:
        for notice in policy.document.notices:
            events.POLICY_NOTICE.log(notice=notice)
    return policy


def _relay(
    settings: Settings,
    clock: Clock,
    writer: TurnWriter,
    permissions: OpenPermissions | TokenPermissions,
    message_rate: tuple[float, float] | None,
    log: RelayLog,
    journal: JournalLog | None,
    history: HistoryRules | None,
    reader: HistoryReader | None,
    handlers: Mapping[type[Message], Handler] = HANDLERS,
) -> Relay:
    memory = MemoryHistory(clock.now_us) if settings.journal_memory and history is not None else None
    relay = Relay(
        _core_options(settings, message_rate, is_open=permissions.is_open),
        handlers,
        clock,
        lambda: str(uuid.uuid4()),
        writer,
        _report_fault,
        permissions,
        log,
        journal or memory,
        history,
        reader or memory,
    )
    relay.hooks.group_of = address_group
    if relay.keeping is not None:
        if memory is not None:
            memory.attach(relay.keeping)
        elif journal is not None:
            journal.judge = relay.keeping.judge
    return relay


def _core_options(settings: Settings, message_rate: tuple[float, float] | None, *, is_open: bool) -> RelayOptions:
    subject = ShareLimits(settings.max_params_per_subject, settings.max_bytes_per_subject)
    origin = ShareLimits(SHARE_FACTOR * subject.max_params, SHARE_FACTOR * subject.max_bytes)
    if is_open:
        subject = origin = ShareLimits()
    params = ParamLimits(
        settings.max_params, settings.max_state_bytes, settings.param_ttl_s, subject, origin, ADMIN_SUBJECT
    )
    return RelayOptions(
        settings.name, params, message_rate, _session_memory_bytes(settings), settings.signal_ttl_s * 1_000_000
    )


def _report_fault(what: str, fault: Exception) -> None:
    events.RELAY_FAULT.failure(Failure(fault), what=what)


def _cluster(settings: Settings, reactor: Any, journal: JournalLog | None) -> ClusterParts | None:
    """Returns the relay's part in its cluster; None for a relay that is alone.

    Raises:
        StartError: what a cluster needs is not installed.
    """
    if not settings.cluster or journal is None:
        return None
    try:
        from clasp_relay.assembly.cluster import ClusterParts  # noqa: PLC0415  a relay that is alone imports none of it
    except ImportError as error:
        raise StartError(f"--cluster needs nats-py: pip install 'clasp-relay[cluster]' ({error})") from error
    return ClusterParts(settings, reactor, journal)


def _decider(
    settings: Settings,
    history: HistoryRules | None,
    tokens: TokenTable | None,
    policy: Policy | None,
    kind: type[Relay],
    handlers: Mapping[type[Message], Handler],
    clock: Clock,
    fan_out: FanOut,
    log: Log,
) -> Relay:
    """Makes the core of a relay that decides for its cluster; each session's own relay limits how much it sends.

    It has a policy of its own, which counts failures, and a memory of its own, since its state is ahead of the log.
    Without a table of tokens it is in open mode.
    """
    own = None if policy is None else Policy(policy.document)
    permissions = OpenPermissions() if tokens is None else TokenPermissions(tokens, own, clock.now_us)
    relay = kind(
        _core_options(settings, None, is_open=permissions.is_open),
        handlers,
        clock,
        lambda: str(uuid.uuid4()),
        fan_out,
        _report_fault,
        permissions,
        log=log,
        history=history,
    )
    if own is not None and policy is not None:
        own.session_ids = SessionIdsOfAll(policy.session_ids, relay.sessions)
    return relay


def _session_memory_bytes(settings: Settings) -> int:
    """Returns the memory limit of one session in bytes; it has room for five waiting SNAPSHOTs of a full state."""
    if not settings.max_session_memory:
        return 0
    return max(settings.max_session_memory, 5 * ENTRY_BYTES * settings.max_params)


def _factory(
    settings: Settings,
    reactor: Any,
    relay: Relay,
    writer: TurnWriter,
    origins: Origins,
    addresses: ClientAddresses,
    log: RelayLog,
) -> ClaspFactory:
    limits = NetLimits(
        settings.max_sessions,
        settings.max_sessions_per_address,
        settings.session_timeout_s,
        settings.outbox_bytes,
        exempts_loopback=settings.is_open_mode or settings.host in LOOPBACK_HOSTS,
    )
    return ClaspFactory(
        relay,
        writer,
        reactor,
        limits,
        allows_origin=origins.admit,
        client_address=lambda peer, forwarded: addresses.of(peer, [forwarded] if forwarded else []),
        address_group=address_group,
        is_proxy=lambda peer: is_in_networks(peer, settings.trusted_proxies),
        observer=log,
    )


def _message_rate(settings: Settings, policy: Policy | None) -> tuple[float, float] | None:
    """Returns messages a second and burst; the option wins over the policy."""
    given = settings.rate_limit
    if given is not None:
        return (given, given * BURST_FACTOR) if given else None
    rate = None if policy is None else policy.document.message_rate
    if rate is not None:
        return rate.per_second, rate.burst
    return MESSAGES_PER_SECOND, MESSAGES_PER_SECOND * BURST_FACTOR
