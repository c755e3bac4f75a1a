"""Accounts of a cluster: real relays with auth servers, and a real nats-server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.wire.messages import Error, Hello, Welcome
from tests.integration.accounts import PASSWORD, Answer, Api
from tests.integration.cluster import Cluster, Member
from tests.integration.namespaces import HERE
from tests.integration.process import environment, wait_until
from tests.integration.raw import Closed, RawClient
from tests.ports import free_port


class Relay(Member):
    """A relay with accounts."""

    def __init__(self, folder: Path, name: str, cluster: Cluster) -> None:
        auth_port = free_port()
        self.api = Api(auth_port)
        super().__init__(folder / name, name, HERE, (*cluster.options, "--auth-port", str(auth_port)))

    def join(self, token: str) -> RawClient:
        """Returns a client that has signed in with a token.

        Raises:
            AssertionError: the relay does not let it in.
        """
        client = self.connect()
        client.send(Hello(1, 0xF8, "test", token))
        answer = client.receive_any()
        assert isinstance(answer, Welcome), answer
        return client

    def admits(self, token: str) -> bool:
        """Tells whether a token lets somebody in."""
        try:
            self.join(token).close()
        except (AssertionError, Closed):
            return False
        return True

    def command(self, *arguments: str) -> str:
        """Does what ``clasp-relay token`` and the like do on the relay's folder, and returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "clasp_relay", *arguments, "--data-dir", str(self.folder / "data")],
            capture_output=True,
            text=True,
            check=True,
            env=environment(),
        )
        return done.stdout.strip()


def ended(client: RawClient) -> bool:
    """Tells whether a session ends as one does whose token was revoked."""
    try:
        while True:
            message = client.receive_any()
            if isinstance(message, Error):
                return message.error == 302
    except Closed:
        return True


class ClusterAccountsTests(SynchronousTestCase):
    """Two relays, and a third one that comes later."""

    def setUp(self) -> None:
        """Starts them."""
        self.folder = Path(self.mktemp()).absolute()
        self.cluster = Cluster(self.folder, relays=0, options=("--app-config", "none", "--web-root", "none"))
        self.addCleanup(self.cluster.close)
        for name in ("r1", "r2"):
            self.cluster.members.append(Relay(self.folder, name, self.cluster))
        self.cluster.start()
        relays = [each for each in self.cluster.members if isinstance(each, Relay)]
        decider = self.cluster.decider
        (self.decider,) = [each for each in relays if each is decider]
        (self.follower,) = [each for each in relays if each is not decider]

    def call(self, relay: Relay, path: str, body: object = None, bearer: str | None = None, **options: Any) -> Answer:
        """Makes one call, which has to succeed."""
        answer = relay.api.call(path, body, bearer, **options)
        self.assertEqual(answer.status, 200, (path, answer))
        return answer

    def register(self, relay: Relay, name: str, **more: object) -> str:
        """Registers somebody and returns the token."""
        body = {"username": name, "password": PASSWORD, **more}
        token: str = self.call(relay, "register", body).body["token"]
        return token

    def test_accounts_are_those_of_all_relays(self) -> None:
        """Whoever signs in, whatever a command changes, whoever is asked at the same time, and whoever is lost."""
        self.sign_in_and_out()
        self.use_commands()
        self.ask_both_for_a_name()
        self.lose_the_decider()

    def sign_in_and_out(self) -> None:
        """A token is good at both, until a password or a sign-out at one of them ends it."""
        decider, follower = self.decider, self.follower
        token = self.register(follower, "Ann")
        self.assertTrue(decider.admits(token))
        other = self.call(decider, "login", {"username": "ann", "password": PASSWORD}).body["token"]
        sessions = [follower.join(other), decider.join(other)]
        keeps = decider.join(token)
        began_s = time.monotonic()
        self.call(follower, "password", {"old": PASSWORD, "new": "another horse"}, token)
        self.assertEqual([ended(session) for session in sessions], [True, True])
        print(f"sessions ended {1000 * (time.monotonic() - began_s):.0f} ms after the password was changed")
        keeps.settle()
        for relay in (decider, follower):
            self.assertFalse(relay.admits(other))
            self.assertEqual(relay.api.call("login", {"username": "Ann", "password": PASSWORD}).status, 401)
        new = self.call(decider, "refresh", {}, token).body["token"]
        self.assertTrue(follower.admits(new))
        self.assertEqual(len(self.call(follower, "sessions", None, new, method="GET").body), 1)
        self.call(follower, "logout", {}, new)
        self.assertFalse(decider.admits(new))
        guest = self.call(follower, "guest", {"name": "Gina"}).body
        taken = decider.api.call("guest", {"name": "Gina", "user_id": guest["user_id"]})
        self.assertEqual(taken.status, 409, taken)

    def use_commands(self) -> None:
        """A device token that is made in one folder is good at both, and ends at both."""
        decider, follower = self.decider, self.follower
        device = follower.command("token", "create", "--scopes", "read:/**")
        wait_until(lambda: decider.admits(device) and follower.admits(device), "the device token is good on both")
        session = follower.join(device)
        wait_until(lambda: len(json.loads(decider.command("token", "list", "--json"))) == 1, "its file has it, too")
        (made,) = json.loads(decider.command("token", "list", "--json"))
        decider.command("token", "revoke", made["id"])
        self.assertTrue(ended(session))
        wait_until(lambda: not decider.admits(device), "it is revoked on both")

    def ask_both_for_a_name(self) -> None:
        """Each time one of the two gets it; both know whose it is."""
        names = [f"name {number}" for number in range(4)]
        found: dict[str, list[Answer]] = {name: [] for name in names}

        def ask(relay: Relay) -> None:
            for name in names:
                found[name].append(relay.api.call("register", {"username": name, "password": PASSWORD}))

        relays = (self.decider, self.follower)
        threads = [threading.Thread(target=ask, args=(relay,)) for relay in relays]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name, answers in found.items():
            self.assertEqual(sorted(answer.status for answer in answers), [200, 409], (name, answers))
            (token,) = [answer.body["token"] for answer in answers if answer.status == 200]
            users = {self.call(relay, "me", None, token, method="GET").body["user_id"] for relay in relays}
            self.assertEqual(len(users), 1)

    def lose_the_decider(self) -> None:
        """Nothing that was acknowledged is lost, nor doubled; who was away and who is new know all accounts."""
        decider, follower = self.decider, self.follower
        tokens: dict[str, str] = {}
        unknown: list[str] = []
        is_over = threading.Event()

        def register() -> None:
            number = 0
            while not is_over.is_set():
                number += 1
                api = Api(follower.api.port, source=f"127.0.1.{number % 250 + 1}")
                answer = api.call("register", {"username": f"user {number}", "password": PASSWORD})
                if answer.status == 200:
                    tokens[f"user {number}"] = answer.body["token"]
                else:
                    self.assertEqual(answer.status, 503, answer)
                    unknown.append(f"user {number}")

        thread = threading.Thread(target=register)
        thread.start()
        wait_until(lambda: len(tokens) > 2, "some have registered")
        decider.kill()
        count = len(tokens)
        wait_until(lambda: len(tokens) > count + 2, "others have registered at the next decider")
        is_over.set()
        thread.join()
        decider.start()
        third = Relay(self.folder, "r3", self.cluster)
        self.cluster.members.append(third)
        third.start()
        self.cluster.wait()
        for relay in (decider, follower, third):
            for name, token in tokens.items():
                me = self.call(relay, "me", None, token, method="GET").body
                self.assertEqual(me["username"], name)
                self.assertEqual(len(self.call(relay, "sessions", None, token, method="GET").body), 1, name)
        for name in unknown:
            statuses = {
                relay.api.call("login", {"username": name, "password": PASSWORD}).status
                for relay in (decider, follower)
            }
            self.assertEqual(len(statuses), 1, name)
        late = self.register(third, "Late")
        self.assertTrue(decider.admits(late))
        self.assertTrue(follower.admits(late))
