"""The npm client that people use, and both clients together."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from tests.integration.node import FOLDER, NodeProcess
from tests.integration.process import RelayProcess, RelayTestCase
from tests.integration.python_client import connected, until


class JsTestCase(RelayTestCase):
    relay: RelayProcess

    def setUp(self) -> None:
        """Starts a relay."""
        super().setUp()
        self.relay = self.start()

    def node(self, *arguments: str) -> NodeProcess:
        """Starts a script; it ends with the test, if not earlier."""
        process = NodeProcess(*arguments, self.relay.url)
        self.addCleanup(process.kill)
        return process


class JsClientTests(JsTestCase):
    """The scenarios of ``tests/js/scenarios.mjs``, each a process."""

    def run_scenario(self, name: str) -> None:
        """Runs a scenario to its end."""
        status, output, errors = self.node("scenarios.mjs", name).end()
        self.assertEqual((status, output), (0, '"done"\n'), errors)

    def test_client_reconnects_after_a_restart_and_finds_the_state(self) -> None:
        """It comes back by itself, with its subscriptions, and what was set before is there."""
        script = self.node("scenarios.mjs", "reconnects_after_a_restart_and_finds_the_state")
        self.assertEqual(script.hear(), "restart")
        self.assertEqual(self.relay.stop(), 0)
        self.start("--port", str(self.relay.port))
        script.tell("restarted")
        self.assertEqual(script.hear(), "done")
        self.assertEqual(script.end()[0], 0)

    def test_client_fifty_beside_fifty_others(self) -> None:
        """Fifty of each kind at once: each sets, and each hears all of the hundred."""
        script = self.node("scenarios.mjs", "fifty_beside_fifty_others")
        self.assertEqual(script.hear(), "ready")

        async def one(number: int, ready: asyncio.Barrier) -> None:
            async with connected(self.relay.url) as watched:
                came = await watched.subscribe("/hundred/**")
                await ready.wait()
                if not number:
                    script.tell("go")
                await watched.client.set(f"/hundred/python/{number}", number)
                await until(lambda: len({address for address, _ in came}) == 100, "all hundred came")

        async def run() -> None:
            ready = asyncio.Barrier(50)
            await asyncio.gather(*(one(number, ready) for number in range(50)))

        asyncio.run(run())
        self.assertEqual(script.hear(), "done")
        self.assertEqual(script.end()[0], 0)

    def test_every_scenario_is_run(self) -> None:
        """A scenario without a test would be forgotten."""
        text = (FOLDER / "scenarios.mjs").read_text(encoding="utf-8")
        names = set(re.findall(r"^  async (\w+)\(", text, re.MULTILINE))
        self.assertEqual({name for name in names if not hasattr(self, f"test_client_{name}")}, set())


def _scenario_test(name: str, told: str) -> Callable[[JsClientTests], None]:
    def test(self: JsClientTests) -> None:
        self.run_scenario(name)

    test.__doc__ = told
    test.__name__ = f"test_client_{name}"
    return test


for _name, _told in {
    "gets_what_is_there_missing_and_deleted": "Null at once for an address without a value, and not a timeout.",
    "gets_every_value_back_as_it_was_set": "Live, in a snapshot and by get.",
    "subscribes_with_wildcards": "A snapshot of what is there, then what changes.",
    "hears_its_own_set_and_not_its_own_event": "A SET comes back; a PUBLISH does not.",
    "sends_a_gesture": "Start, the last of the moves, and end, with phase and id.",
    "sends_a_bundle": "All of it arrives, in order, as single messages.",
    "sends_a_bundle_for_later": "It is applied at its time, and not before.",
    "sends_a_timeline": "What no client encodes is no error either.",
    "unsubscribes": "Nothing comes any more; the other subscription is untouched.",
    "queries_its_local_list_of_signals": "Nothing is sent to it unasked.",
    "subscribes_with_options": "The last value always arrives, late rather than never.",
    "learns_of_errors_and_goes_on": "Codes and addresses are told.",
    "takes_a_snapshot_of_many_params": "In as many SNAPSHOTs as it takes.",
    "fifty_at_once": "Each sets, and each hears all of the fifty.",
}.items():
    setattr(JsClientTests, f"test_client_{_name}", _scenario_test(_name, _told))


class BothClientsTests(JsTestCase):
    """One of each."""

    def test_python_hears_what_js_says(self) -> None:
        """JS numbers are floats, whatever they are."""
        said: list[list[Any]] = [
            ["set", "/shared/number", 1],
            ["set", "/shared/text", "ünïcödé 漢字 🎛️"],
            ["set", "/shared/bytes", {"$bytes": "00ff07"}],
            ["set", "/shared/map", {"z": [1.5, None, True], "a": {"b": {"$bytes": ""}}}],
            ["emit", "/shared/event", {"cue": "intro"}],
            ["stream", "/shared/stream", 0.25],
            ["gesture", "/shared/touch", 3, "start", {"x": 1}],
            ["gesture", "/shared/touch", 3, "end", {"x": 2}],
            ["bundle", [{"set": ["/shared/one", 1]}, {"emit": ["/shared/two", "2"]}]],
            ["set", "/shared/number", None],
        ]
        expected = [
            ("/shared/number", 1.0),
            ("/shared/text", "ünïcödé 漢字 🎛️"),
            ("/shared/bytes", b"\x00\xff\x07"),
            ("/shared/map", {"z": [1.5, None, True], "a": {"b": b""}}),
            ("/shared/event", {"cue": "intro"}),
            ("/shared/stream", 0.25),
            ("/shared/touch", {"x": 1.0}),
            ("/shared/touch", {"x": 2.0}),
            ("/shared/one", 1.0),
            ("/shared/two", "2"),
            ("/shared/number", None),
        ]
        peer = self.node("peer.mjs")
        self.assertEqual(peer.hear(), "ready")

        async def run() -> None:
            async with connected(self.relay.url) as watched:
                came = await watched.subscribe("/shared/**")
                for line in said:
                    peer.tell(line)
                    self.assertEqual(await asyncio.to_thread(peer.hear), "sent")
                await until(lambda: len(came) == len(expected), "all came")
                self.assertEqual([repr(each) for each in came], [repr(each) for each in expected])

        asyncio.run(run())

    def test_js_hears_what_python_says(self) -> None:
        """Integers beyond 2^53 come as near as a JS number can say."""
        peer = self.node("peer.mjs")
        self.assertEqual(peer.hear(), "ready")

        async def run() -> None:
            async with connected(self.relay.url) as watched:
                client = watched.client
                await client.set("/shared/number", 2**53 + 1)
                await client.set("/shared/text", "ünïcödé 漢字 🎛️")
                await client.set("/shared/bytes", b"\x00\xff\x07")
                await client.set("/shared/map", {"z": [1.5, None, True], "a": {"b": b""}})
                await client.emit("/shared/event", {"cue": "intro"})
                await client.emit("/shared/empty")
                await client.stream("/shared/stream", 0.25)
                await client.gesture("/shared/touch", 3, "start", {"x": 1})
                await client.gesture("/shared/touch", 3, "end", {"x": 2})
                await client.bundle([{"set": ["/shared/one", 1]}, {"emit": ["/shared/two", {"n": b"\x01"}]}])
                await client.set("/shared/number", None)
                await watched.round_trip()

        asyncio.run(run())
        peer.tell(["came"])
        self.assertEqual(
            peer.hear(),
            [
                ["/shared/number", 2**53],
                ["/shared/text", "ünïcödé 漢字 🎛️"],
                ["/shared/bytes", {"$bytes": "00ff07"}],
                ["/shared/map", {"z": [1.5, None, True], "a": {"b": {"$bytes": ""}}}],
                ["/shared/event", {"cue": "intro"}],
                ["/shared/empty", None],
                ["/shared/stream", 0.25],
                ["/shared/touch", {"x": 1, "phase": "start", "gestureId": 3}],
                ["/shared/touch", {"x": 2, "phase": "end", "gestureId": 3}],
                ["/shared/one", 1],
                ["/shared/two", {"n": {"$bytes": "01"}}],
                ["/shared/number", None],
            ],
        )
