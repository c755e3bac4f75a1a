"""A relay's role in its cluster, and its position in the log: the state that the parts of its node share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from clasp_relay.cluster.account_images import AccountImages, NoAccounts
from clasp_relay.cluster.batches import Batch
from clasp_relay.cluster.deciding import Row
from clasp_relay.cluster.following import Following
from clasp_relay.cluster.ports import Engine
from clasp_relay.core.records import Change, ChangeKind, no_param
from clasp_relay.logs import events
from clasp_relay.wire.values import decode_value, encode_value

__all__ = ["Journal", "Membership", "NodeOptions", "Position", "Role", "position_of", "position_row"]

RETRY_S = 0.1
"""After so long what the engine has not answered is tried again."""

READ_AT_ONCE = 64
"""How many batches are read from the log together."""


LINGER_S = 0.02
"""How long a follower's journal lets rows wait for more of them."""


class Role(Enum):
    """What a relay is in its cluster."""

    JOINING = "joining"
    FOLLOWER = "follower"
    DECIDER = "decider"


class NodeOptions(NamedTuple):
    """What a node is told about itself."""

    cluster: str
    """How all subjects begin."""
    relay: str
    """The relay's name."""
    is_standby: bool = False


class Position(NamedTuple):
    """How far the log is in a relay's files."""

    seq: int
    digest: bytes
    epoch: int = 0
    time_us: int = 0
    """The decider's clock then, in Unix µs."""


class Journal(Protocol):
    """What a node needs of the journal."""

    @property
    def appended_seq(self) -> int:
        """The last row that was appended."""

    def append_judged(self, entries: Sequence[Row], *, is_last: bool = False) -> None:
        """Records changes of which it is known what history does with them; at once, where they are a turn's last."""

    def when_recorded(self, call: Callable[[], None]) -> None:
        """Makes a call once all is recorded that was appended; never where that fails."""

    def linger(self, delay_s: float) -> None:
        """Lets what is appended wait for more, in s, unless somebody waits until it is recorded."""

    def find_position(self, number: int, call: Callable[[Change | None], None]) -> None:
        """Calls with the row that names a batch of the log; with None where there is none."""

    def read_tail(self, seq: int, last_seq: int, call: Callable[[Sequence[Change] | None], None]) -> None:
        """Calls with the changes from a row on, that one included, up to another; with None where some are gone."""

    def restart_at(self, seq: int) -> None:
        """Has an empty journal go on behind a row of the others."""


class Membership:
    """See the module.

    Args:
        options: what the node is told about itself.
        engine: the log and the bus.
        following: the sessions of this relay and what the log says.
        journal: this relay's.
        position: how far the log is in this relay's files; None where nothing of it is.
        monotonic_s: seconds.
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
        """How far the log was in this relay's files when it began to join."""
        self.monotonic_s = monotonic_s
        self.call_later = call_later
        self.fatal: Callable[[str], None] = _ignore
        """Ends the relay's part in the cluster, and says why in one line; set by the node."""
        self.accounts: AccountImages = NoAccounts()
        """Gives others the accounts, and takes theirs; set before the start where there are any."""
        self.role = Role.JOINING
        self.is_over = False
        """Whether it takes no part any more."""
        self.alarms = 0
        """How often the log was not what it has to be."""
        self.applied_journal_seq = journal.appended_seq
        """The last row of the journal whose change is applied."""
        self.known_seq = 0
        """The last batch that has left the decider, as far as is known."""
        self.releasing = 0
        """How many batches this relay has brought into the log that its journal does not have yet."""
        self.is_cold = False
        """Whether it began without another relay's image, so that it knows no sessions of others."""
        self.base = b""
        """Names the state that this relay began with and that the log does not tell; empty where there is none."""

    def be(self, role: Role) -> None:
        """Takes another role."""
        self.role = role
        # Else each relay is woken by what it says itself, and by what others ask of the decider.
        self.hear("live", role is not Role.DECIDER)
        self.hear("decide", role is Role.DECIDER)
        # What a follower records is in the log already, so it need not be synced batch by batch.
        self.journal.linger(LINGER_S if role is Role.FOLLOWER else 0.0)

    @property
    def stream(self) -> str:
        """The name of the log, for people."""
        return self.options.cluster

    @property
    def seq(self) -> int:
        """The last batch that this relay has; what its files have counts, also beyond the log."""
        if self.position is not None and (self.role is Role.JOINING or self.base):
            return self.position.seq
        return self.ledger.seq

    def begin_at(self, position: Position) -> None:
        """Goes on behind a batch."""
        ledger = self.ledger
        ledger.seq, ledger.digest, ledger.epoch, ledger.time_us = position

    def subject(self, name: str) -> str:
        """Returns a subject of this cluster."""
        return f"{self.options.cluster}.{name}"

    def hear(self, name: str, is_heard: bool) -> None:
        """Has what is said under a name come here, or not."""
        self.engine.hear(self.subject(name), is_heard)

    def publish(self, name: str, payload: bytes) -> None:
        """Sends something to all relays; it may be lost."""
        self.engine.publish(self.subject(name), payload)

    def alarm(self, text: str) -> None:
        """Notes that the log is not what it has to be."""
        self.alarms += 1
        events.CLUSTER_ALARM.log(text=text)


def position_of(change: Change | None) -> Position | None:
    """Returns what a row of the journal says about the log; None for None."""
    if change is None:
        return None
    digest = decode_value(change.param.value)
    param = change.param
    return Position(change.number, digest if isinstance(digest, bytes) else b"", param.revision, param.timestamp_us)


def position_row(seq: int, digest: bytes, batch: Batch) -> Row:
    """Returns the row of the journal that stands behind the rows of a batch and says that the log has it."""
    about = no_param("", "", "", batch.time_us)._replace(value=encode_value(digest), revision=batch.epoch)
    return Change(about, ChangeKind.POSITION, number=seq), None, (), b""


def _ignore(_text: str) -> None:
    """Nobody is told."""
