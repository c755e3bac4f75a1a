"""A relay's role in its cluster, and its position in the log: the state that the parts of its node share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from clasp_relay.cluster.accounts.account_images import AccountImages, NoAccounts
from clasp_relay.cluster.deciding.batch_log import Row
from clasp_relay.cluster.exchange.batches import Batch
from clasp_relay.cluster.exchange.ports import Engine
from clasp_relay.cluster.following.following import Following
from clasp_relay.core.records import Change, ChangeKind, no_param
from clasp_relay.logs import events
from clasp_relay.wire.values import decode_value, encode_value

__all__ = ["Journal", "Membership", "NodeOptions", "Position", "Role", "position_of", "position_row"]

RETRY_S = 0.1
"""After how long a request that the engine has not answered is repeated."""

READ_AT_ONCE = 64
"""How many batches are read from the log together."""


LINGER_S = 0.02
"""By how long a follower's journal delays commits, to gather more rows."""


class Role(Enum):
    """The role of a relay in its cluster."""

    JOINING = "joining"
    FOLLOWER = "follower"
    DECIDER = "decider"


class NodeOptions(NamedTuple):
    """The options of a node."""

    cluster: str
    """The name of the cluster, the prefix of all subjects."""
    relay: str
    """The relay's name."""
    is_standby: bool = False


class Position(NamedTuple):
    """The last batch of the log that is in a relay's files."""

    seq: int
    digest: bytes
    epoch: int = 0
    time_us: int = 0
    """The decider's clock at that batch, in Unix µs."""


class Journal(Protocol):
    """The journal, as a node uses it."""

    @property
    def appended_seq(self) -> int:
        """The seq of the last row that was appended."""

    def append_judged(self, entries: Sequence[Row], *, is_last: bool = False) -> None:
        """Records changes with what history does with them; commits at once if they are a turn's last."""

    def when_recorded(self, call: Callable[[], None]) -> None:
        """Makes a call once all appended changes are recorded; never if recording fails."""

    def linger(self, delay_s: float) -> None:
        """Delays commits by so many seconds, unless a caller waits until changes are recorded."""

    def find_position(self, number: int, call: Callable[[Change | None], None]) -> None:
        """Calls with the POSITION that names a batch of the log by its number; with None if there is none."""

    def read_tail(self, seq: int, last_seq: int, call: Callable[[Sequence[Change] | None], None]) -> None:
        """Calls with the changes from ``seq`` to ``last_seq``, both included; with None if some were deleted."""

    def restart_at(self, seq: int) -> None:
        """Makes an empty journal continue after a row of other relays."""


class Membership:
    """See the module.

    Args:
        options: the options of the node.
        engine: the log and the bus.
        following: the sessions of this relay, and the part that follows the log.
        journal: the journal of this relay.
        position: the last batch of the log in this relay's files; None if there is none.
        monotonic_s: returns seconds.
        call_later: the event loop's.
    """

    def __init__(
        self,
        options: NodeOptions,
        engine: Engine,
        following: Following,
        journal: Journal,
        position: Position | None,
        monotonic_s: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.options = options
        self.engine = engine
        self.following = following
        self.ledger = following.ledger
        self.journal = journal
        self.position = position
        """The last batch of the log in this relay's files when it began to join."""
        self.monotonic_s = monotonic_s
        self.call_later = call_later
        self.fatal: Callable[[str], None] = _ignore
        """Ends the relay's part in the cluster, for a reason in one line; set by the node."""
        self.accounts: AccountImages = NoAccounts()
        """Captures and installs accounts; set before the start if there are any."""
        self.role = Role.JOINING
        self.is_over = False
        """Whether the relay's part in the cluster has ended."""
        self.alarms = 0
        """Number of alarms: faults of the log."""
        self.applied_journal_seq = journal.appended_seq
        """The last row of the journal whose change is applied."""
        self.known_seq = 0
        """The last batch that is known to have left the decider."""
        self.releasing = 0
        """Number of batches that this relay has appended to the log and its journal does not have yet."""
        self.is_cold = False
        """Whether it has begun without another relay's image, so that it knows no sessions of others."""
        self.base = b""
        """The identifier of the state that this relay began with and the log does not have; empty if there is none."""

    def be(self, role: Role) -> None:
        """Changes the role."""
        self.role = role
        # Otherwise each relay would be woken by its own messages, and by others' requests to the decider.
        self.hear("live", role is not Role.DECIDER)
        self.hear("decide", role is Role.DECIDER)
        # A follower's changes are in the log already, so its journal need not sync batch by batch.
        self.journal.linger(LINGER_S if role is Role.FOLLOWER else 0.0)

    @property
    def stream(self) -> str:
        """The name of the log, for people."""
        return self.options.cluster

    @property
    def seq(self) -> int:
        """The last batch that this relay has, including those in its files, even if the log has lost them."""
        if self.position is not None and (self.role is Role.JOINING or self.base):
            return self.position.seq
        return self.ledger.seq

    def begin_at(self, position: Position) -> None:
        """Sets the batch after which this relay continues."""
        ledger = self.ledger
        ledger.seq, ledger.digest, ledger.epoch, ledger.time_us = position

    def subject(self, name: str) -> str:
        """Returns a subject of this cluster by its name."""
        return f"{self.options.cluster}.{name}"

    def hear(self, name: str, is_heard: bool) -> None:
        """Delivers or ignores the messages of a subject from now on."""
        self.engine.hear(self.subject(name), is_heard)

    def publish(self, name: str, payload: bytes) -> None:
        """Sends a message to all relays; it may be lost."""
        self.engine.publish(self.subject(name), payload)

    def alarm(self, text: str) -> None:
        """Counts and logs an alarm: a fault of the log."""
        self.alarms += 1
        events.CLUSTER_ALARM.log(text=text)


def position_of(change: Change | None) -> Position | None:
    """Returns the position in a POSITION of the journal; None for None."""
    if change is None:
        return None
    digest = decode_value(change.param.value)
    param = change.param
    return Position(change.number, digest if isinstance(digest, bytes) else b"", param.revision, param.timestamp_us)


def position_row(seq: int, digest: bytes, batch: Batch) -> Row:
    """Returns the POSITION that follows the rows of a batch in the journal, and says that the log has it."""
    about = no_param("", "", "", batch.time_us)._replace(value=encode_value(digest), revision=batch.epoch)
    return Change(about, ChangeKind.POSITION, number=seq), None, (), b""


def _ignore(_text: str) -> None:
    """Does nothing."""
