"""A cluster in memory whose relays have accounts: tokens that all of them know, a policy, and what acts by itself."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.permissions import EXPIRED, REVOKED, TokenPermissions
from clasp_relay.access.policy import Policy
from clasp_relay.access.session_ids import KnownSessionIds, SessionIdsOfAll
from clasp_relay.access.tokens import POLICY_SCOPES, EndOfToken, TokenRecord, TokenTable, digest_of
from clasp_relay.assembly.cleanup import Acting
from clasp_relay.cluster.deciding.deciding import Deciding
from clasp_relay.cluster.membership import Position
from clasp_relay.core.relay import Relay
from clasp_relay.core.rights.port import Permissions
from clasp_relay.wire.messages import Ack, Error, Message
from clasp_relay.wire.values import decode_value
from tests.cluster.world import Cluster, Member

__all__ = ["PolicyCase", "PolicyCluster", "PolicyMember"]

POLICY = {
    "scopes": ["read:/**", "write:/**"],
    "write_rules": [
        {
            "path": "/room/{room}/said/{n}",
            "checks": [{"type": "state_null", "lookup": "/room/{room}/bans/{session}"}],
            "stamp": {"field": "by", "value": "{session}"},
        },
        {
            "path": "/safe/{n}",
            "checks": [{"type": "value_field_equals", "field": "key", "value": "right"}],
            "failures": {"max": 2, "window_secs": 60},
        },
        {"path": "/mine/{id}", "checks": [{"type": "segment_is_own_session_id", "segment": "id"}]},
    ],
    "clear_on_disconnect": ["/here/{session}"],
}


class PolicyMember(Member):
    """One relay."""

    def __init__(
        self, cluster: Cluster, name: str, position: Position | None = None, *, is_standby: bool = False
    ) -> None:
        assert isinstance(cluster, PolicyCluster), "a cluster without a policy"
        self.document = Policy.from_document(cluster.policy).document
        self.tokens = TokenTable(cluster.clock, lambda: self.now_us() / 1e6)
        self.tokens.is_following = True
        self.core: Relay | None = None
        """The core that decides, while this relay does."""
        self.deciding: Deciding | None = None
        self.acting: Acting | None = None
        self._made: list[tuple[Policy, TokenPermissions]] = []
        super().__init__(cluster, name, position, is_standby=is_standby)
        self.session_ids = KnownSessionIds(self.relay.sessions, self.now_us, lambda _: None)
        self._made[0][0].session_ids = self.session_ids
        self.following.knows_token = self.tokens.knows
        self.tokens.on_end(self._token_ended)
        self.tokens.on_replace(self._token_replaced)
        for record in cluster.records.values():
            self.tokens.follow(record, is_revoked=False)

    def permissions_of(self, now_us: Callable[[], int]) -> Permissions:
        """See ``Member``: each core has a policy of its own."""
        policy = Policy(self.document)
        permissions = TokenPermissions(self.tokens, policy, now_us)
        self._made.append((policy, permissions))
        return permissions

    def _deciding(self, epoch: int, from_us: int) -> Deciding:
        self.deciding = super()._deciding(epoch, from_us)
        self.core = self.deciding.relay
        self._made[-1][0].session_ids = SessionIdsOfAll(self.session_ids, self.core.sessions)
        return self.deciding

    def begun(self, core: Relay) -> None:
        """See ``Member``."""
        self.acting = Acting(core, self._made[-1][0], self.tokens)

    def _cores(self) -> list[Relay]:
        return [self.relay] if self.core is None else [self.relay, self.core]

    def _token_ended(self, record: TokenRecord, why: EndOfToken) -> None:
        for core in self._cores():
            core.end_token(record.subject, record.digest, EXPIRED if why is EndOfToken.EXPIRED else REVOKED)

    def _token_replaced(self, subject: str, old: bytes, new: bytes) -> None:
        for session in self.relay.sessions.of_token(subject, old):
            session.identity = self._made[0][1].readmit(subject, new) or session.identity
        if self.deciding is not None:
            self.deciding.pass_sessions(subject, old, new)


class PolicyCluster(Cluster):
    """Relays under one policy; a token is called as its subject.

    Args:
        policy: the document.
    """

    member = PolicyMember

    def __init__(self, policy: object) -> None:
        super().__init__()
        self.policy = policy
        self.records: dict[str, TokenRecord] = {}

    def issue(self, name: str, subject: str | None = None, replaces: bytes | None = None) -> TokenRecord:
        """Has all relays know a token."""
        record = TokenRecord(digest_of(name), subject or name, name, False, POLICY_SCOPES, 0, None, replaces=replaces)
        self.records[name] = record
        for member in self.living:
            member.tokens.follow(record, is_revoked=False)
        return record

    def revoke(self, name: str) -> None:
        """Ends a token at all relays."""
        record = self.records.pop(name)
        for member in self.living:
            member.tokens.revoke([record.digest])

    @property
    def living(self) -> list[PolicyMember]:
        """The relays that live."""
        return [each for each in self.members if isinstance(each, PolicyMember) and not each.is_dead]

    def pair(self) -> tuple[PolicyMember, PolicyMember]:
        """Starts two relays; returns the one that decides, and the one that follows."""
        self.started("one", "two")
        decider, (follower, *_) = self.decider, self.followers
        assert isinstance(decider, PolicyMember), "nobody decides"
        assert isinstance(follower, PolicyMember), "nobody follows"
        return decider, follower


class PolicyCase(SynchronousTestCase):
    """Has two relays under ``POLICY``, and some people with a token."""

    def setUp(self) -> None:
        """Two relays and some people."""
        self.cluster = PolicyCluster(POLICY)
        for name in ("ann", "bob"):
            self.cluster.issue(name)
        self.decider, self.follower = self.cluster.pair()

    def tearDown(self) -> None:
        """Nothing was a fault of ours."""
        for member in self.cluster.members:
            self.assertEqual(member.faults, [])

    def codes(self, messages: list[Message]) -> list[int]:
        """Returns the codes of ERRORs; 0 for an ACK."""
        return [each.error if isinstance(each, Error) else 0 for each in messages if isinstance(each, Ack | Error)]

    def param(self, address: str) -> object:
        """Returns what a follower has at an address."""
        found = self.follower.relay.params.get(address)
        return None if found is None else decode_value(found.value)
