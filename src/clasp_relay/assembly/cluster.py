"""Assembles a relay's part in its cluster: engine, node, deciding core. Imported only with ``--cluster``."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from clasp_relay.access.console import Console, GivenToken
from clasp_relay.access.refusals import Busy, NoRoom
from clasp_relay.access.tickets import Given, Tickets
from clasp_relay.cluster.accounts.account_asking import NOT_DONE
from clasp_relay.cluster.accounts.shared_accounts import SharedAccounts
from clasp_relay.cluster.clocks import DecidersClock, FollowersClock
from clasp_relay.cluster.deciding.batch_log import BatchLog, Judged
from clasp_relay.cluster.deciding.deciders_core import DecidersRelay, RulesFanOut, deciders_handlers
from clasp_relay.cluster.deciding.deciding import Deciding
from clasp_relay.cluster.exchange.ledger import Ledger
from clasp_relay.cluster.following.following import Following
from clasp_relay.cluster.membership import Membership, NodeOptions, Position, Role, position_of
from clasp_relay.cluster.nats.engine import NatsEngine
from clasp_relay.cluster.nats.objects import ObjectStore
from clasp_relay.cluster.node import Node
from clasp_relay.cluster.passes import share_passes
from clasp_relay.cluster.past import Past
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.history.reading import MAX_SEQ
from clasp_relay.core.ports import Clock, FanOut, Log, Timer
from clasp_relay.core.records import Change
from clasp_relay.core.relay import Handler, Relay
from clasp_relay.doors.door import AtDecider
from clasp_relay.doors.mqtt.claims import Claims
from clasp_relay.errors import StartError, cause_text
from clasp_relay.logs import events
from clasp_relay.settings import Settings
from clasp_relay.storage.journal.history_pages import JournalPast
from clasp_relay.storage.journal.history_reader import HistoryReader
from clasp_relay.storage.journal.journal_log import JournalLog
from clasp_relay.storage.users import StoreBusy
from clasp_relay.storage.users_file import held
from clasp_relay.wire.messages import Message

__all__ = ["ClusterParts", "MakeRelay"]

NAME_FILE = "relay-name"
"""The file in the data-dir with the generated name of the relay."""

LONGEST_HOST = 20

RETRY_AFTER_S = 5
"""Retry after, in seconds, for a call that the cluster has not answered."""

MakeRelay = Callable[[type[Relay], Mapping[type[Message], Handler], Clock, FanOut, Log], Relay]
"""Makes a core with the same rights and limits as the one that serves clients."""


class ClusterParts:
    """A relay's part in its cluster.

    Args:
        settings: the settings.
        reactor: the event loop.
        journal: records the changes.
    """

    def __init__(self, settings: Settings, reactor: Any, journal: JournalLog) -> None:
        self.when_lost: Callable[[], None] = _nothing
        """Called when the relay cannot go on, after the cause was logged; set by the service."""
        self.when_imaged: Callable[[], object] = _nothing
        """Called when the state came from another relay, to save it; set by the service."""
        self._settings = settings
        self._reactor = reactor
        self._journal = journal
        self._reader: HistoryReader | None = None
        self._past: Past | None = None
        journal.records_all = True
        self._name = settings.relay_name or ""
        self._ledger = Ledger()
        self._following = Following("", self._name, self._ledger, time.monotonic, self._send, reactor.callLater)
        self._make_relay: MakeRelay | None = None
        self._node: Node | None = None
        self._engine: NatsEngine | None = None
        self.accounts: SharedAccounts | None = None
        """The accounts of the cluster; None in open mode."""
        if not settings.is_open_mode:
            self.accounts = SharedAccounts(
                self._following,
                time.monotonic,
                reactor.callLater,
                self._publish,
                lambda sentence: Busy(sentence, RETRY_AFTER_S),
                self._lost,
            )
        self.objects: ObjectStore | None = None
        """The files that users have sent; None where the relay takes none."""
        if settings.takes_files:
            self.objects = ObjectStore(
                settings.cluster_name,
                settings.files_bucket_bytes,
                self._started_engine,
                time.monotonic,
                reactor.callLater,
                lambda sentence: Busy(sentence, RETRY_AFTER_S),
                NoRoom,
            )
        self._deciding_now: Deciding | None = None
        self._at_decider: list[AtDecider] = []
        self._passes: tuple[Callable[[], Tickets], Callable[[], Console]] | None = None

    def clock(self, own: Clock) -> Clock:
        """Returns the clock of the core that serves clients.

        Args:
            own: this machine's clock.
        """
        return FollowersClock(own, lambda: None if self._node is None else self._node.now_us())

    @property
    def core(self) -> Relay | None:
        """The core that decides; None while another relay decides."""
        return None if self._deciding_now is None else self._deciding_now.relay

    def watch_tokens(self, knows_token: Callable[[str], bool]) -> None:
        """Sets the function that tells whether this relay knows a token; without it all tokens count as known.

        Args:
            knows_token: called with a token.
        """
        self._following.knows_token = knows_token

    def pass_sessions(self, subject: str, old: bytes, new: bytes) -> None:
        """Replaces the token of sessions at this relay's deciding core, if it decides."""
        if self._deciding_now is not None:
            self._deciding_now.pass_sessions(subject, old, new)

    def clear(self, addresses: Sequence[str]) -> Deferred[None]:
        """Has the decider end the params at some addresses, by nulls in the relay's name.

        Returns:
            a Deferred that fires once this relay has applied the nulls; it fails with ``Busy``, to be tried again.
        """
        done: Deferred[None] = Deferred()

        def over(is_done: bool) -> None:
            if is_done:
                done.callback(None)
            else:
                done.errback(Busy(NOT_DONE, RETRY_AFTER_S))

        self._following.clear(addresses, over)
        return done

    def handlers(self) -> Mapping[type[Message], Handler]:
        """Returns the handlers of the core that serves clients."""
        return self._following.handlers(HANDLERS)

    def attach(self, relay: Relay, make_relay: MakeRelay) -> None:
        """Sets the core that serves clients, and the function that makes another one like it."""
        self._relay, self._make_relay = relay, make_relay
        self._following.attach(relay)
        relay.committer.when_accounts = self._has_accounts if self.accounts is None else self.accounts.replica.follow

    def take_passes(self, tickets: Callable[[], Tickets], console: Callable[[], Console]) -> None:
        """Sets the passes, which are in no database, so that clients may also use them at other relays.

        Args:
            tickets: returns the tickets; called once the relay is opened.
            console: returns the console tokens, likewise.
        """
        self._passes = tickets, console

    def take_reader(self, reader: HistoryReader | None) -> None:
        """Sets the reader of history in the journal; None without history."""
        self._reader = reader

    def take_doors(self, doors: Iterable[object]) -> None:
        """Sets the relay's doors, and other parts that act only while it decides."""
        self._at_decider = [door for door in doors if isinstance(door, AtDecider)]

    @property
    def claims(self) -> Claims:
        """Returns the object that claims client names of a door, so that other relays know which are here."""
        return self._following

    def open(self) -> None:
        """Reads from the journal how much of the log it has; the state must be loaded.

        Raises:
            StartError: a relay that was not in the cluster has changed the files.
        """
        settings = self._settings
        name = self._name = self._name or _made_name(settings.data_dir)
        self._following.be_called(name, _new_link(name))
        engine = NatsEngine(self._reactor, settings.cluster, settings.cluster_name, settings.cluster_creds, name)
        self._engine = engine
        if self._passes is not None:
            tickets, console = self._passes
            share_passes(tickets(), Given, engine, f"{settings.cluster_name}.ticket")
            share_passes(console(), GivenToken, engine, f"{settings.cluster_name}.console")
        membership = Membership(
            NodeOptions(settings.cluster_name, name, settings.standby),
            engine,
            self._following,
            self._journal,
            self._position(),
            time.monotonic,
            self._reactor.callLater,
        )
        self._node = Node(
            membership,
            self._relay,
            self._deciding,
            lambda: time.time_ns() // 1_000,
            lambda: _new_link(name),
            lambda session, why: events.BUNDLE_NOT_RUN.log(session=session, reason=why),
            self._lost,
            self._imaged,
        )
        if self.accounts is not None:
            membership.accounts = self.accounts.replica
            self._open_accounts(self.accounts, engine)
        self._open_past(engine)

    def _open_accounts(self, accounts: SharedAccounts, engine: NatsEngine) -> None:
        """Writes to users.db the records that only the journal has, and begins to answer other relays."""
        try:
            accounts.replica.catch_up(self._journal.accounts_behind(accounts.replica.number))
        except StoreBusy:
            raise held(self._settings.users_file) from None
        for name, call in (
            ("accounts.ask", accounts.heard_calls),
            ("accounts.resend", accounts.heard_resend),
            ("accounts.where", accounts.heard_where),
            ("accounts.here", accounts.heard_here),
            ("accounts.attempts", accounts.heard_attempts),
        ):
            engine.subscribe(f"{self._settings.cluster_name}.{name}", call)

    def _open_past(self, engine: NatsEngine) -> None:
        """Asks other relays for history from before this one joined, where history is kept."""
        if self._reader is None:
            return
        name = self._settings.cluster_name
        past = self._past = Past(
            JournalPast(self._journal, self._reader, self._begin_history),
            lambda subject, payload: engine.publish(f"{name}.{subject}", payload),
            lambda: "" if self._opened.role is Role.JOINING else self._following.link,
            lambda: self._ledger.links,
            time.monotonic,
            self._reactor.callLater,
            self._know_past,
        )
        engine.subscribe(f"{name}.past", past.heard_request)
        engine.subscribe(f"{name}.page", past.heard_page)
        # Until the journal tells which history this relay has, all of it may be at other relays only.
        self._know_past(MAX_SEQ)

    def _begin_history(self, last_us: int) -> None:
        """Notes the time of another relay's entry, so that later entries of this relay get later times."""
        if self._relay.keeping is not None:
            self._relay.keeping.begin(last_us)

    def _know_past(self, begins_seq: int) -> None:
        if self._relay.replays is not None:
            self._relay.replays.begins_seq = begins_seq

    def start(self) -> None:
        """Begins to join the cluster."""
        self._opened.start()
        if self.accounts is not None:
            self.accounts.start(_new_link(self._name))
        if self._past is not None:
            self._past.start()

    def stop(self) -> Deferred[None]:
        """Leaves the cluster in order; the sessions must have ended."""
        if self._past is not None:
            self._past.stop()
        if self.objects is not None:
            self.objects.stop()
        done: Deferred[None] = Deferred()

        def stopped() -> None:
            if self.accounts is not None:
                self.accounts.stop()
            done.callback(None)

        if self._node is None:
            stopped()
        else:
            self._node.stop(stopped)
        return done

    def sweep(self) -> None:
        """Ends expired params, gestures and signals of the deciding core. Called twice a second."""
        if self._node is not None:
            self._node.sweep()

    def hand_over(self) -> None:
        """Has another relay decide, if there is one."""
        if self._node is not None:
            self._node.hand_over()

    @property
    def is_ready(self) -> bool:
        """Whether this relay can serve clients."""
        is_ready = self._node is not None and self._node.is_ready
        return is_ready and (self.accounts is None or self.accounts.is_ready)

    def applied_seq(self) -> int:
        """Returns the last row of the journal whose change is applied."""
        return self._opened.applied_journal_seq

    def status(self) -> Mapping[str, object]:
        """See ``http.metrics.Clustered``."""
        node = self._node
        if node is None:
            return {"role": "joining", "epoch": 0, "behind_records": 0, "behind_ms": 0}
        role = "standby" if node.is_standby and node.role is Role.FOLLOWER else node.role.value
        return {
            "role": role,
            "epoch": node.epoch,
            "behind_records": node.behind_records,
            "behind_ms": round(node.behind_s * 1_000),
        }

    def member(self) -> tuple[str, str]:
        """Returns the relay's name and role."""
        return self._name, str(self.status()["role"])

    @property
    def forwarded(self) -> int:
        """See ``http.metrics.Clustered``."""
        return self._following.requests.forwarded

    @property
    def failovers(self) -> int:
        """See ``http.metrics.Clustered``."""
        return 0 if self._node is None else self._node.failovers

    @property
    def alarms(self) -> int:
        """See ``http.metrics.Clustered``."""
        return 0 if self._node is None else self._node.alarms

    @property
    def _opened(self) -> Node:
        assert self._node is not None, "used before it was opened"
        return self._node

    def _send(self, packet: Any) -> None:
        self._opened.send_packet(packet)

    def _started_engine(self) -> NatsEngine:
        assert self._engine is not None, "used before it was opened"
        return self._engine

    def _publish(self, name: str, payload: bytes) -> None:
        self._started_engine().publish(f"{self._settings.cluster_name}.{name}", payload)

    def _has_accounts(self, _change: Change) -> None:
        self._lost(
            f"the cluster {self._settings.cluster_name} has accounts, and this relay is in open mode: start it with "
            "the --auth-port and the policy that the others have"
        )

    def _position(self) -> Position | None:
        found = self._journal.last_position()
        if found is None:
            return None
        if found.seq != self._journal.appended_seq:
            raise StartError(
                f"{self._journal.path}: a relay without --cluster has used this folder since it was last in the "
                "cluster; start with an empty data-dir, or give the cluster another name"
            )
        return position_of(found.change)

    def _deciding(self, epoch: int, from_us: int) -> Deciding:
        assert self._make_relay is not None, "decided before the relay was made"

        def call_later(delay_s: float, call: Callable[[], None]) -> Timer:
            timer: Timer = self._reactor.callLater(delay_s, call)
            return timer

        log = BatchLog(self._journal.renewal)
        clock = DecidersClock(from_us, time.monotonic, call_later)
        relay = self._make_relay(DecidersRelay, deciders_handlers(HANDLERS, log), clock, RulesFanOut(), log)
        keeping = relay.keeping
        if keeping is not None:

            def judge(change: Change) -> Judged:
                return change, *keeping.judge(change)

            log.judge = judge

        def stop() -> None:
            self._deciding_now = None
            for door in self._at_decider:
                door.rest()
            if self.accounts is not None:
                self.accounts.stop_deciding()
            clock.stop()

        if self.accounts is not None:
            self.accounts.begin_deciding(epoch, log, clock.now_us)
        self._deciding_now = Deciding(relay, log, epoch, call_later, stop, self._decides)
        return self._deciding_now

    def _decides(self, core: Relay) -> None:
        for door in self._at_decider:
            door.act_in(core)

    def _imaged(self) -> None:
        self.when_imaged()

    def _lost(self, text: str) -> None:
        events.CLUSTER_LOST.log(text=text)
        self.when_lost()


def _new_link(name: str) -> str:
    return f"{name}.{uuid.uuid4().hex[:12]}"


def _made_name(folder: Path) -> str:
    """Returns the name that was made at the first start: the host's with a random tail.

    Raises:
        StartError: it cannot be kept.
    """
    path = folder / NAME_FILE
    try:
        if path.exists():
            name = path.read_text(encoding="ascii").strip()
            if name:
                return name
        host = "".join(each for each in socket.gethostname() if each.isascii() and (each.isalnum() or each == "-"))
        name = f"{host[:LONGEST_HOST] or 'relay'}-{uuid.uuid4().hex[:6]}"
        path.write_text(name + "\n", encoding="ascii")
    except (OSError, ValueError) as error:
        raise StartError(f"{path}: the relay's name cannot be kept there: {cause_text(error)}") from error
    return name


def _nothing() -> None:
    """Does nothing."""
