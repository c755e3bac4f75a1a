"""The Python client that people use, against the relay that they run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Announce, SignalDefinition
from tests.integration.process import RelayProcess, RelayTestCase
from tests.integration.python_client import Watched, connected, until
from tests.integration.raw import RawClient

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    0.0,
    1.5,
    float("inf"),
    "",
    "text",
    "ünïcödé 漢字 🎛️",
    b"",
    b"\x00\xff bytes",
    [],
    [1, [2.5, "three"], None],
    {},
    {"z": 1, "a": {"ключ": b"\x01", "10": [True]}},
]
"""What a Python program may set, and must get back as it is."""

Scenario = Callable[[Watched, Watched], Awaitable[None]]


class PythonClientTests(RelayTestCase):
    relay: RelayProcess

    def setUp(self) -> None:
        """Starts a relay."""
        super().setUp()
        self.relay = self.start()

    def run_pair(self, scenario: Scenario) -> None:
        """Runs a scenario with two clients; both must be reading at its end."""

        async def run() -> None:
            async with connected(self.relay.url) as one, connected(self.relay.url) as two:
                await scenario(one, two)

        asyncio.run(run())

    def test_client_gets_what_is_there_missing_and_deleted(self) -> None:
        """None at once for an address without a value, and not a timeout."""

        async def scenario(one: Watched, two: Watched) -> None:
            await one.client.set("/there", 1)
            await one.client.set("/deleted", 1)
            await one.client.set("/deleted", None)
            await one.round_trip()
            self.assertEqual(await two.client.get("/there"), 1)
            self.assertIsNone(await two.client.get("/missing"))
            self.assertIsNone(await two.client.get("/deleted"))

        self.run_pair(scenario)

    def test_client_gets_every_value_back_as_it_was_set(self) -> None:
        """Live, in a snapshot and by get: with type, sign and size."""

        async def scenario(one: Watched, two: Watched) -> None:
            live = await two.subscribe("/values/**")
            for index, value in enumerate(VALUES):
                await one.client.set(f"/values/{index}", value)
            await one.round_trip()
            await until(lambda: len(live) == len(VALUES), "all values came")
            self.assertEqual([repr(value) for _, value in live], [repr(value) for value in VALUES])
            async with connected(self.relay.url) as three:
                shown = await three.subscribe("/values/*")
                self.assertEqual(len({address for address, _ in shown}), len(VALUES) - 1)  # null deletes
                for index, value in enumerate(VALUES):
                    self.assertEqual(repr(await three.client.get(f"/values/{index}")), repr(value))

        self.run_pair(scenario)

    def test_client_subscribes_with_wildcards(self) -> None:
        """One segment, and any number of them; a snapshot of what is there, then what changes."""

        async def scenario(one: Watched, two: Watched) -> None:
            await one.client.set("/light/1/on", True)
            await one.client.set("/light", "all")
            await one.round_trip()
            star, stars = await two.subscribe("/light/*/on"), await two.subscribe("/light/**")
            self.assertEqual(star[0], ("/light/1/on", True))
            self.assertLessEqual({("/light/1/on", True), ("/light", "all")}, set(stars))
            star.clear(), stars.clear()  # type: ignore[func-returns-value]
            for address in ("/light/2/on", "/light/2/level", "/other"):
                await one.client.set(address, 2)
            await one.round_trip()
            await two.round_trip()
            self.assertEqual(star, [("/light/2/on", 2)])
            self.assertEqual(stars, [("/light/2/on", 2), ("/light/2/level", 2)])

        self.run_pair(scenario)

    def test_client_hears_its_own_set_and_not_its_own_event(self) -> None:
        """A SET comes back with what the relay made of it; a PUBLISH does not."""

        async def scenario(one: Watched, two: Watched) -> None:
            mine, theirs = await one.subscribe("/**"), await two.subscribe("/**")
            await one.client.set("/param", 1)
            await one.client.emit("/event", {"cue": "intro"})
            await one.client.emit("/empty")
            await one.client.stream("/stream", 23.5)
            await one.round_trip()
            await two.round_trip()
            self.assertEqual(mine, [("/param", 1)])
            self.assertEqual(theirs, [("/param", 1), ("/event", {"cue": "intro"}), ("/empty", None), ("/stream", 23.5)])

        self.run_pair(scenario)

    def test_client_sends_a_gesture(self) -> None:
        """Start, the last of the moves, and end, in order."""

        async def scenario(one: Watched, two: Watched) -> None:
            came = await two.subscribe("/touch/*")
            await one.client.gesture("/touch/0", 1, "start", {"x": 0})
            for x in range(1, 20):
                await one.client.gesture("/touch/0", 1, "move", {"x": x})
            await one.client.gesture("/touch/0", 1, "end", {"x": 20})
            await one.round_trip()
            await two.round_trip()
            places = [value["x"] for _, value in came]
            self.assertEqual((places[0], places[-2:]), (0, [19, 20]))
            self.assertEqual(places, sorted(places))

        self.run_pair(scenario)

    def test_client_sends_a_bundle(self) -> None:
        """In MessagePack, the only way that it knows; all of it arrives, in order, as single messages."""

        async def scenario(one: Watched, two: Watched) -> None:
            came = await two.subscribe("/**")
            await one.client.bundle(
                [{"set": ["/a", 1]}, {"emit": ["/e", {"b": b"\x00", "t": "ü"}]}, {"set": ["/c", [2**40, None]]}]
            )
            await one.round_trip()
            await two.round_trip()
            self.assertEqual(came, [("/a", 1), ("/e", {"b": b"\x00", "t": "ü"}), ("/c", [2**40, None])])

        self.run_pair(scenario)

    def test_client_sends_a_bundle_for_later(self) -> None:
        """It is applied at its time, and not before."""

        async def scenario(one: Watched, two: Watched) -> None:
            came: list[float] = []
            two.client.subscribe("/later", lambda *_: came.append(time.time() * 1e6))
            await two.round_trip()
            due_us = one.client.time() + 300_000
            await one.client.bundle([{"set": ["/later", 1]}], at=due_us)
            await until(lambda: came, "the bundle is applied")
            self.assertGreaterEqual(came[0], due_us - 50_000)

        self.run_pair(scenario)

    def test_client_survives_that_its_bundle_is_refused(self) -> None:
        """One bad member: nothing is applied, and the client goes on."""

        async def scenario(one: Watched, two: Watched) -> None:
            came = await two.subscribe("/**")
            await one.client.bundle([{"set": ["/a", 1]}, {"set": ["no address", 1]}])
            await one.round_trip()
            await two.round_trip()
            self.assertEqual(came, [])

        self.run_pair(scenario)

    def test_client_queries_signals(self) -> None:
        """Always answered, in order, even with an empty list."""
        raw = RawClient.live(self.relay.port)
        self.addCleanup(raw.close)
        raw.send(Announce("/lumen", (SignalDefinition("/lumen/opacity", Signal.PARAM, "f64", "rw"),)), qos=1)
        raw.settle()

        async def scenario(one: Watched, two: Watched) -> None:
            found = await one.client.query_signals("/lumen/**")
            self.assertEqual([signal["address"] for signal in found], ["/lumen/opacity"])
            self.assertEqual(await two.client.query_signals("/nothing/**"), [])
            await one.client.set("/lumen/opacity", 1)  # a param is no announced signal
            self.assertEqual(len(await two.client.get_signals("/**")), 1)

        self.run_pair(scenario)

    def test_client_unsubscribes(self) -> None:
        """Nothing comes any more; the other subscription is untouched."""

        async def scenario(one: Watched, two: Watched) -> None:
            came: list[Any] = []
            unsubscribe = two.client.subscribe("/a", lambda value, _: came.append(value))
            others = await two.subscribe("/b")
            unsubscribe()
            await two.round_trip()
            await one.client.set("/a", 1)
            await one.client.set("/b", 1)
            await one.round_trip()
            await until(lambda: others, "the other one came")
            self.assertEqual(came, [])
            self.assertNotIn("/a", two.client._params)

        self.run_pair(scenario)

    def test_client_sets_a_param_for_a_while(self) -> None:
        """It ends on time, and whoever looks is told: there are no ghosts."""

        async def scenario(one: Watched, two: Watched) -> None:
            came = await two.subscribe("/short")
            await one.client.set("/short", 1, ttl=1, absolute=True)
            await until(lambda: len(came) == 2, "the param ended")
            self.assertEqual(came, [("/short", 1), ("/short", None)])

        self.run_pair(scenario)

    def test_client_subscribes_with_options(self) -> None:
        """The last value always arrives, late rather than never."""

        async def scenario(one: Watched, two: Watched) -> None:
            came = await two.subscribe("/fast", maxRate=5)
            for value in range(200):
                await one.client.set("/fast", value)
            await until(lambda: came and came[-1] == ("/fast", 199), "the last value came")
            self.assertLess(len(came), 100)

        self.run_pair(scenario)

    def test_client_survives_errors(self) -> None:
        """ERRORs of all kinds are printed by it, and it goes on."""

        async def scenario(one: Watched, _: Watched) -> None:
            await one.client.set("no slash", 1)
            await one.client.set("/a/*", 1)
            await one.client.set("/big", "x" * 65_500)
            one.client.subscribe("no pattern", lambda *_: None)
            await one.round_trip()
            await one.client.set("/fine", 1)
            self.assertEqual(await one.client.get("/fine"), 1)

        self.run_pair(scenario)

    def test_client_takes_a_snapshot_of_many_params(self) -> None:
        """2,000 params and some that fill a frame each: in as many SNAPSHOTs as it takes."""

        async def scenario(one: Watched, _: Watched) -> None:
            for index in range(2_000):
                await one.client.set(f"/many/{index}", index)
            for index in range(5):
                await one.client.set(f"/large/{index}", "x" * 60_000)
            await one.round_trip()
            async with connected(self.relay.url) as three:
                self.assertEqual(len(set(await three.subscribe("/many/*"))), 2_000)
                self.assertEqual(len(set(await three.subscribe("/large/*"))), 5)

        self.run_pair(scenario)

    def test_fifty_clients_at_once(self) -> None:
        """Each sets, and each hears all of the fifty."""

        async def run() -> None:
            async def one(number: int, ready: asyncio.Barrier) -> None:
                async with connected(self.relay.url) as watched:
                    came = await watched.subscribe("/fifty/*")
                    await ready.wait()
                    await watched.client.set(f"/fifty/{number}", number)
                    await until(lambda: len({address for address, _ in came}) == 50, "all fifty came")
                    await ready.wait()

            ready = asyncio.Barrier(50)
            await asyncio.gather(*(one(number, ready) for number in range(50)))

        asyncio.run(run())

    def test_client_reconnects_after_a_restart_and_finds_the_state(self) -> None:
        """It comes back by itself, and what was set before is there."""

        async def run() -> None:
            watched = Watched(self.relay.url)
            watched.client.reconnect_interval = 0.2
            gone: list[object] = []
            watched.client.on_disconnect(gone.append)
            await watched.client.connect()
            await watched.client.set("/kept", {"a": b"\x00"})
            await watched.round_trip()
            first = watched.client.session_id
            port = str(self.relay.port)
            # It tries just once: the relay must be there again by then.
            watched.client.reconnect_interval = 10
            self.assertEqual(await asyncio.to_thread(self.relay.stop), 0)
            again = await asyncio.to_thread(self.start, "--port", port)
            self.assertEqual(again.port, int(port))
            await until(lambda: watched.client.connected and watched.client.session_id != first, "it is back")
            self.assertIn("1001", str(gone))
            async with connected(again.url) as other:
                self.assertEqual(await other.client.get("/kept"), {"a": b"\x00"})
                came = await watched.subscribe("/kept")
                self.assertEqual(came, [("/kept", {"a": b"\x00"})])
                await other.client.set("/kept", 2)
                await until(lambda: ("/kept", 2) in came, "it hears of a change")
            await watched.round_trip()
            self.assertEqual(watched.errors, [])
            await watched.client.close()

        asyncio.run(run())
