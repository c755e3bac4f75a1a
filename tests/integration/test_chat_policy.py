"""The packaged policies over real sockets: everybody of the tables, signed in by the HTTP API, writes and reads."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

from clasp_relay.access.names import name_keys
from clasp_relay.access.policy import Policy
from clasp_relay.core.rights.port import Grant
from clasp_relay.storage.session_ids import GivenId
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire.messages import Bundle, Error, Get, Message, Ping, Pong, Publish, Set, Subscribe
from clasp_relay.wire.values import PyValue, encode_value
from tests.access.policy import chat_flows
from tests.access.policy.chat_cases import (
    ANYBODY,
    BARE,
    COMPAT_SIGHTS,
    COMPAT_WRITES,
    DM,
    EVERYBODY,
    LOCK,
    NOBODY,
    OPEN,
    PRIV,
    SIGHTS,
    WRITES,
    Row,
    Sight,
    scene,
)
from tests.integration.accounts import AccountsRelay, AccountsTestCase, Person, event, put, put_state, told
from tests.integration.chat_world import SocketWorld

if TYPE_CHECKING:
    from tests.access.policy.world import World

EVERY_ONE = EVERYBODY.split()
ROOMY = ("--rate-limit", "0", "--admin-token", "admin.token")

PROBE = "/nobody/may/write/this"
"""Behind a message that is accepted, a SET there makes its bundle fail: so it is judged, and changes nothing."""

ROWS_AT_ONCE = 40

LIVE_COMPAT = [
    *[
        Sight(f"{room}/{rest}", ANYBODY, f"{room}/**")
        for room in (OPEN, LOCK, PRIV, DM, BARE)
        for rest in ("messages", "reactions/m1/x", "crypto/pubkey/mia", "video/presence/s-mia", "meta", "bans/ben")
    ],
    Sight("/chat/registry/ns-meta/a/b/__auth", NOBODY, "/chat/registry/ns-meta/**"),
    Sight("/chat/user/mia/profile", ANYBODY),
    Sight("/chat/user/mia/friends/dora", "mia"),
    Sight("/chat/requests/mia/gus", "mia"),
]
"""What chat-compat shows live: as today, everything in a room to whoever subscribed."""


def as_(user: str, value: PyValue) -> PyValue:
    """Puts a user where a row says ``{me}``."""
    return json.loads(json.dumps(value).replace("{me}", user))


def message_of(row: Row, user: str) -> Set | Publish:
    """Returns what a user sends who tries a row."""
    address, value = str(as_(user, row.address)), encode_value(as_(user, row.value))
    return Publish(address, value=value) if row.is_publish else Set(address, value)


class SceneCase(AccountsTestCase):
    """The scene of the tables inside a relay, and everybody in it signed in."""

    def start_scene(self, name: str, more: dict[str, PyValue] | None = None) -> AccountsRelay:
        """Starts a relay under a packaged policy, with what the scene has set, and more by nobody in particular."""
        world = scene(name)
        for address, value in (more or {}).items():
            if address not in world.params:
                world.store("", address, Grant(encode_value(value), None))
        put_state(self.folder / "data" / "state.json", world.params.values())
        self.put_session_ids()
        relay = self.start_accounts("--app-config", name, *ROOMY)
        self.tokens = {user: relay.api.guest(user) for user in EVERY_ONE}
        return relay

    def put_session_ids(self) -> None:
        """Has everybody had sessions with the ids of the tables, in the relay's life before."""
        users = SqliteUsers(self.folder / "data" / "users.db", name_keys)
        now_s = int(time.time())
        given = [GivenId(f"s-{user}{more}", user, now_s) for user in EVERY_ONE for more in ("", "-new", "-2")]
        users.session_ids.note(given, [], 0)
        users.close()


class WriteTests(SceneCase):
    """Who may write what."""

    def refusals(self, person: Person, messages: list[Message]) -> list[Error | None]:
        """Sends messages, each with a PING behind it, and returns the ERROR that each is answered with."""
        refusals: list[Error | None] = []
        for start in range(0, len(messages), ROWS_AT_ONCE):
            some = messages[start : start + ROWS_AT_ONCE]
            person.send(*(each for message in some for each in (message, Ping())))
            for _ in some:
                before = person.receive_until(lambda message: isinstance(message, Pong))[:-1]
                refusals.append(next((each for each in before if isinstance(each, Error)), None))
        return refusals

    def check_writes(self, name: str, rows: list[Row]) -> None:
        """Asserts who may write: judged in a bundle that changes nothing, and alone, where nothing is to change."""
        relay = self.start_scene(name)
        may: dict[int, set[str]] = defaultdict(set)
        for user, token in self.tokens.items():
            person = self.sign_in(relay, token)
            mine = [message_of(row, user) for row in rows]
            judged = self.refusals(person, [Bundle((message, put(PROBE, 1))) for message in mine])
            for index, refusal in enumerate(judged):
                assert refusal is not None, rows[index]
                if refusal.address == PROBE:
                    may[index].add(user)
                else:
                    self.assertEqual(refusal.address, mine[index].address)
                    self.assertIn(refusal.error, (301, 403))
            alone = [i for i, row in enumerate(rows) if row.is_publish or user not in row.who.split()]
            for index, refusal in zip(alone, self.refusals(person, [mine[i] for i in alone]), strict=True):
                with self.subTest(row=rows[index], user=user):
                    self.assertEqual(refusal is None, user in rows[index].who.split(), (rows[index], user, refusal))
        for index, row in enumerate(rows):
            with self.subTest(row=row):
                self.assertEqual(may[index], set(row.who.split()), row)

    def test_everybody_writes_what_the_safe_policy_says(self) -> None:
        """And nobody else does, nor in a bundle."""
        self.check_writes("chat", WRITES)

    def test_everybody_writes_what_the_compatible_policy_says(self) -> None:
        """Likewise."""
        self.check_writes("chat-compat", COMPAT_WRITES)


class SightTests(SceneCase):
    """Who sees what, by SUBSCRIBE, GET and HELLO, and live."""

    def start_sights(self, name: str, sights: list[Sight]) -> AccountsRelay:
        """Starts a relay with something to see at every address of a table."""
        return self.start_scene(name, {sight.address: {"n": 1} for sight in sights})

    def watchers(self, relay: AccountsRelay, sights: list[Sight]) -> Iterator[tuple[str, str | None, Person]]:
        """Connects everybody once for each pattern of a table, and once for all literal ones."""
        patterns = dict.fromkeys(sight.pattern for sight in sights if sight.pattern != "hello")
        for user, token in self.tokens.items():
            for pattern in patterns:
                yield user, pattern, self.sign_in(relay, token)

    def check_snapshots(self, relay: AccountsRelay, sights: list[Sight]) -> None:
        """Asserts what snapshots and GETs show, to everybody."""
        seen: dict[tuple[str, str | None], set[str]] = defaultdict(set)
        for user, pattern, person in self.watchers(relay, sights):
            if pattern is None:
                asked = [Get(address) for address in dict.fromkeys(s.address for s in sights if s.pattern is None)]
                shown = told(person.ask(*asked))
            else:
                shown = told(person.ask(Subscribe(1, pattern)))
            for address, value in shown:
                if value is not None:
                    seen[address, pattern].add(user)
            for address, _ in told(person.first):
                seen[address, "hello"].add(user)
        self.compare(seen, sights)

    def check_live(self, relay: AccountsRelay, sights: list[Sight]) -> None:
        """Asserts whom an event reaches, for every address of a table."""
        live = [sight for sight in sights if sight.pattern != "hello"]
        literal = list(dict.fromkeys(sight.address for sight in live if sight.pattern is None))
        watchers = list(self.watchers(relay, live))
        for _, pattern, person in watchers:
            asked = literal if pattern is None else [pattern]
            person.ask(*(Subscribe(number, each, types=0x1E) for number, each in enumerate(asked)))
        self.assertEqual(self.admin(relay).ask(*(event(a, 1) for a in dict.fromkeys(s.address for s in live))), [])
        seen: dict[tuple[str, str | None], set[str]] = defaultdict(set)
        for user, pattern, person in watchers:
            for address, _ in told(person.settle()):
                seen[address, pattern].add(user)
        self.compare(seen, live)

    def compare(self, seen: dict[tuple[str, str | None], set[str]], sights: list[Sight]) -> None:
        """Asserts that everybody saw what is in a table, and nobody else did."""
        for sight in sights:
            with self.subTest(sight=sight):
                self.assertEqual(seen[sight.address, sight.pattern], set(sight.who.split()), sight)

    def test_everybody_sees_what_the_safe_policy_says(self) -> None:
        """In snapshots, by GET, and live; the snapshot after WELCOME is empty."""
        sights = [sight for sight in SIGHTS if sight.pattern != "hello"]
        relay = self.start_sights("chat", sights)
        self.check_snapshots(relay, sights)
        self.check_live(relay, sights)
        for token in self.tokens.values():
            self.assertEqual(told(self.sign_in(relay, token).first), [])

    def test_everybody_sees_what_the_compatible_policy_says(self) -> None:
        """In snapshots, the one after WELCOME included; live, a room is open to whoever subscribed, as it was."""
        relay = self.start_sights("chat-compat", COMPAT_SIGHTS + LIVE_COMPAT)
        self.check_snapshots(relay, COMPAT_SIGHTS)
        self.check_live(relay, LIVE_COMPAT)


class FlowTests(AccountsTestCase):
    """What the original app does, message by message, under each policy: one relay, other people in each flow."""

    def run_flows(self, flows: type[chat_flows.Flows], *, without: tuple[str, ...] = ()) -> None:
        """Runs every test of a class of flows at a relay."""
        relay = self.start_accounts("--app-config", flows.name, *ROOMY)
        names = [name for name in dir(flows) if name.startswith("test_") and name not in without]
        self.assertGreater(len(names), 5)
        for number, name in enumerate(names):
            with self.subTest(name):
                world = SocketWorld(relay, Policy.packaged(flows.name), f"-{number}")
                self.addCleanup(world.close)
                flow = flows(name)
                flow.world = cast("World", world)
                flow.subscribes = self._subscribes(world)  # type: ignore[method-assign]
                getattr(flow, name)()

    def _subscribes(self, world: SocketWorld) -> Callable[..., None]:
        return lambda by, *patterns: self.assertEqual(world.subscribe(by, *patterns), [])

    def test_everything_works_under_the_safe_policy(self) -> None:
        """And what it forbids is refused."""
        self.run_flows(chat_flows.ChatFlows, without=("test_second_tab_stays_inside",))

    def test_everything_works_under_the_compatible_policy(self) -> None:
        """As in the original relay."""
        self.run_flows(chat_flows.CompatFlows)
