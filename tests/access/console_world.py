"""A relay with accounts and a console to test with: everything in memory."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from clasp_relay.access.audit import Audit
from clasp_relay.access.console import Administrator, Console
from clasp_relay.access.devices import DeviceWatch
from clasp_relay.access.passwords import Passwords
from clasp_relay.access.people import Files, People
from clasp_relay.access.permissions import REVOKED, TokenPermissions
from clasp_relay.access.policy import Policy
from clasp_relay.access.search import Search
from clasp_relay.access.secret_files import admin_record
from clasp_relay.access.tokens import digest_of
from clasp_relay.core.relay import RelayOptions
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.files import FileUse
from tests.access.stack import HOME, START_S, Stack
from tests.core.world import World, WorldClock

T = TypeVar("T")

ADMIN_TOKEN = "cpsk_" + "0" * 32
OPEN_POLICY = {"scopes": ["read:/**", "write:/**"]}
PASSWORD = "password"


class MemoryFiles:
    """Files of people; see ``people.Files``."""

    def __init__(self) -> None:
        self.sizes: dict[str, list[int]] = {}

    async def usage(self, subjects: Sequence[str]) -> list[FileUse]:
        """Counts them, each as from another client address."""
        return [FileUse(subject, b"", 1, size) for subject in subjects for size in self.sizes.get(subject, ())]

    async def remove_all_of(self, subject: str) -> int:
        """Forgets them."""
        return len(self.sizes.pop(subject, []))


class ConsoleWorld:
    """The relay, its accounts, and the user Root (id root), who is an administrator.

    Args:
        policy: the policy's document.
        files: what people have sent.
    """

    def __init__(self, policy: Any = OPEN_POLICY, files: Files | None = None) -> None:
        self.stack = stack = Stack()
        self.policy = Policy.packaged(policy) if isinstance(policy, str) else Policy.from_document(policy)
        clock = WorldClock()
        permissions = TokenPermissions(stack.tokens, self.policy, clock.now_us)
        history = self.policy.history_rules() if self.policy.document.history else None
        self.world = World(RelayOptions(), permissions, clock, None, history)
        self.relay = self.world.relay
        stack.tokens.on_end(lambda record, _why: self.relay.end_token(record.subject, record.digest, REVOKED))
        stack.tokens.tokens_in_use = lambda subject: {
            each.identity.token for each in self.relay.sessions.of_subject(subject)
        }
        stack.tokens.add(admin_record(ADMIN_TOKEN, START_S))
        now_s, store = stack.clock.seconds, stack.store
        self.audit = Audit(store.audit, stack.sql, stack.clock, now_s, lambda text: f"#{text}" if text else "", 0)
        stack.accounts._note = self.audit.note
        passwords = Passwords(stack.hasher, stack.hashing)
        self.console = Console(
            stack.accounts, passwords, store.administration, stack.sql, stack.tokens, now_s, stack.random_hex
        )
        self.devices = DeviceWatch(store.devices, stack.sql, stack.tokens)
        self.search = Search(self.relay.params, self.relay.committer, self.relay.work)
        self.people = People(
            store=store,
            sql=stack.sql,
            tokens=stack.tokens,
            devices=self.devices,
            console=self.console,
            audit=self.audit,
            sessions=self.relay.sessions,
            shares=self.relay.params.shares,
            search=self.search,
            now_s=now_s,
            random_hex=stack.random_hex,
            files=files,
            history=None if self.relay.replays is None else self.relay.replays.reader,
        )
        self.root_token = self.register("Root", "root")
        store.administration.grant("root", AuditEntry(START_S, "admin.grant", target="root"))
        self.console.load()

    def register(self, username: str, user_id: str) -> str:
        """Registers a user and returns the token."""
        return result_of(self.stack.accounts.register(username, PASSWORD, user_id, None, HOME)).token

    def guest(self, name: str, user_id: str) -> str:
        """Signs a guest in and returns the token."""
        return result_of(self.stack.accounts.guest(name, user_id, None, HOME)).token

    def sign_in(self, username: str = "Root") -> str:
        """Signs in to the console and returns its token."""
        return result_of(self.console.sign_in(username, PASSWORD, HOME)).token

    @property
    def root(self) -> Administrator:
        """The administrator, signed in."""
        return self.console.admit(self.sign_in())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Does something that may take some turns of the relay."""
        done = Deferred.fromCoroutine(work)
        self.world.turn()
        return result_of(done)

    def actions(self) -> list[tuple[str, str, str]]:
        """Returns what administrators did, from the audit log: action, actor and target."""
        rows = (row.entry for row in self.stack.store.audit.after(0, 1_000))
        return [(each.action, each.actor, each.target) for each in rows if each.action.startswith("admin.")]

    def live_tokens(self, user_id: str) -> int:
        """Returns how many tokens of a person are valid."""
        return len(self.stack.tokens.of_subject(user_id))

    def close(self) -> None:
        """Closes the store."""
        self.stack.tokens.stop()
        self.stack.store.close()


def result_of(done: Deferred[T]) -> T:
    """Returns the result of a Deferred that has one, or raises its failure."""
    found: list[Any] = []
    done.addBoth(found.append)
    assert found, "there is no result yet"
    if isinstance(found[0], Failure):
        found[0].raiseException()
    result: T = found[0]
    return result


def digest_is_valid(world: ConsoleWorld, token: str) -> bool:
    """Tells whether a token is in the table of valid tokens."""
    return world.stack.tokens.is_valid(digest_of(token))
