"""Attackers of every kind that a guest token or less allows, drawn at random; for ``tests.integration.soak``.

Each kind is a coroutine that goes on for some seconds. What the relay answers is of no interest here, nor is it when it
ends a connection: what counts is what others notice.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
import time
from collections.abc import Awaitable, Callable

from clasp_relay.wire.constants import Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import (
    Announce,
    Bundle,
    Get,
    Message,
    Publish,
    Query,
    Replay,
    Set,
    SignalDefinition,
    Subscribe,
    Unsubscribe,
)
from clasp_relay.wire.values import encode_value
from tests.integration.attacker import ATTACK_S, PAUSE_S, Attacker, Ports, event, put
from tests.integration.door_attackers import DOOR_KINDS
from tests.integration.raw import BINARY, PING, ws_frame

AT_ONCE = 6
"""Attackers at work at the same time: on two cores they keep the relay busy and leave the others something."""

NICENESS = 5
"""How much less of a processor the attackers' process gets than the relay's, where both want one."""

ALLOWED = (ConnectionError, TimeoutError, asyncio.IncompleteReadError)
"""How the relay may end what an attacker does."""


async def costly_patterns(one: Attacker) -> None:
    """Many wildcards in the tree, and deep addresses to walk them."""
    client = await one.session()
    client.send(*(Subscribe(n, f"{one.folder}/**" + f"/a*b{n}/**" * 15, 0xFF) for n in range(60)))
    deep = one.folder + "/a1b" * 110
    await one.go_on(client, event(deep, 1), put(deep, 1), Get(deep), Subscribe(1, f"{one.folder}/**/a*/**", 0xFF))


async def toggled_patterns(one: Attacker) -> None:
    """Subscribes and unsubscribes to what many params match."""
    client = await one.session()
    patterns = ("/chat/**", "/chat/room/**", "/chat/room/*/meta", "/**/presence/**")
    messages: list[Message] = []
    for number, pattern in enumerate(patterns):
        messages += [Subscribe(number, pattern, 0xFF), Unsubscribe(number)]
    await one.go_on(client, *messages)


async def many_signals(one: Attacker) -> None:
    """Announces as much as fits, and asks for all of it."""
    client = await one.session()
    signals = tuple(SignalDefinition(f"{one.folder}/{n:05}", Signal.EVENT) for n in range(900))
    client.send(Announce(one.folder, signals))
    await one.go_on(client, Query(f"{one.folder}/**"), Query("/**"))


async def large_values(one: Attacker) -> None:
    """Fills the state as far as it may."""
    client = await one.session()
    value = "x" * 60_000
    number = 0
    while one.goes_on() and not client.ended.done():
        client.send(*(put(f"{one.folder}/{number + n}", value) for n in range(4)))
        number += 4
        await asyncio.sleep(PAUSE_S)


async def many_params(one: Attacker) -> None:
    """Fills the state with small params that end at the same moment."""
    client = await one.session()
    number = 0
    while one.goes_on() and not client.ended.done():
        members = tuple(put(f"{one.folder}/{number + n}", n)._replace(ttl=3) for n in range(200))
        client.send(Bundle(members))
        number += 200
        await asyncio.sleep(0.2)


async def due_at_once(one: Attacker) -> None:
    """Has bundles wait for one instant."""
    client = await one.session()
    due_us = int((time.time() + ATTACK_S / 2) * 1e6)
    members = tuple(put(f"{one.folder}/b{n}", n) for n in range(100))
    await one.go_on(client, Bundle(members, due_us), qos=1)


async def catch_ups(one: Attacker) -> None:
    """A room with many reactions that opens and closes before a reader with many subscriptions."""
    owner = await one.session()
    room = await one.room(owner)
    owner.send(Bundle(tuple(put(f"{room}/reactions/m{n}/x/{one.name}", True) for n in range(250))))
    reader = Attacker(one.ports, one.random, 0)
    spectator = await reader.session(*(Subscribe(n, f"{room}/reactions/**", 0xFF) for n in range(250)))
    shut = False
    while one.goes_on() and not spectator.ended.done():
        shut = not shut
        owner.send(put(f"{room}/meta", {"name": "m", "isPublic": not shut}))
        spectator.send(put(f"{room}/presence/{reader.name}", {"n": 1} if shut else None))
        await asyncio.sleep(PAUSE_S)
    reader.close()


async def held_values(one: Attacker) -> None:
    """Has large values held back by maxRate at many addresses."""
    client = await one.session(*(Subscribe(n, f"{one.folder}/**", 0xFF, max_rate=1) for n in range(20)))
    value = "x" * 30_000
    number = 0
    while one.goes_on() and not client.ended.done():
        client.send(
            *(Publish(f"{one.folder}/{number + n}", Signal.STREAM, value=encode_value(value)) for n in range(4))
        )
        number += 4
        await asyncio.sleep(PAUSE_S)


async def slow_reader(one: Attacker) -> None:
    """Asks for everything and reads nothing."""
    client = await one.session()
    client.transport.pause_reading()
    messages = [Subscribe(n, "/chat/**", 0xFF) for n in range(20)]
    await one.go_on(client, *messages, Query("/**"), Get("/chat"))


async def locks_and_nulls(one: Attacker) -> None:
    """Locks, nulls and conflicts at addresses of its own and of others."""
    client = await one.session()
    room = await one.room(client)
    messages = [
        Set(f"{room}/presence/{one.name}", encode_value({"n": 1}), None, True, False, None),
        put(f"{room}/presence/{one.name}", None),
        Set(f"{one.folder}/x", encode_value(1), 7, True, False, 1),
        put("/chat/room/honest-0/meta", {"name": "mine"}),
        put("/chat/room/honest-0/bans/honest-0-1", {"by": one.name}),
    ]
    await one.go_on(client, *messages, qos=1)


async def impostor(one: Attacker) -> None:
    """Writes in others' names."""
    client = await one.session()
    messages: list[Message] = [
        event("/chat/room/honest-0/messages", {"userId": "honest-0-1", "type": "text", "text": "forged"}),
        event("/chat/room/honest-0/messages", {"\ufeffuserId": "honest-0-1", "text": "forged"}),
        put("/chat/room/honest-0/typing/honest-0-1", {"t": 1}),
        put("/chat/user/honest-0-1/profile", {"name": "forged"}),
        Replay("/chat/**"),
    ]
    await one.go_on(client, *messages, qos=1)


async def babble(one: Attacker) -> None:
    """Bytes that are no CLASP, before HELLO and after it."""
    client = await one.session()
    while one.goes_on() and not client.ended.done():
        for _ in range(20):
            payload = one.random.randbytes(one.random.randrange(1, 200))
            client.transport.write(ws_frame(BINARY, encode_frame(payload)))
        nested = b"\x81\xa4type" + b"\x91" * 30_000
        client.transport.write(ws_frame(BINARY, encode_frame(nested)))
        await asyncio.sleep(PAUSE_S)


async def pings(one: Attacker) -> None:
    """Control frames without end."""
    client = await one.session()
    while one.goes_on() and not client.ended.done():
        client.transport.write(ws_frame(PING, b"x" * 100) * 200)
        await asyncio.sleep(PAUSE_S)


async def bursts(one: Attacker) -> None:
    """More messages than the limit allows, most of them long."""
    client = await one.session()
    text = {"text": "x" * 20_000}
    await one.go_on(client, *(event(f"{one.folder}/e", text) for _ in range(20)), *(Get("/chat/x") for _ in range(50)))


async def silent_connections(one: Attacker) -> None:
    """TCP connections that say nothing, or a header that drips."""
    opened = []
    for number in range(150):
        _, writer = await one.tcp(one.ports.relay if number % 2 else one.ports.auth)
        opened.append(writer)
    while one.goes_on():
        for writer in opened[::3]:
            writer.write(b"G")
        await asyncio.sleep(0.5)
    for writer in opened:
        writer.transport.abort()


async def reconnects(one: Attacker) -> None:
    """Sessions that come and are torn off."""
    while one.goes_on():
        client = await one.session(Subscribe(1, "/chat/**", 0xFF))
        client.transport.abort()


async def http_flood(one: Attacker) -> None:
    """Long names, many ranges, pipelined requests, sign-ins that fail."""
    name = "e" + "\u0301" * 3_000
    while one.goes_on():
        await one.http("POST", "/auth/login", json.dumps({"username": name, "password": "x" * 900}).encode())
        await one.http("POST", "/auth/register", json.dumps({"username": one.name, "password": "short"}).encode())
        await one.http("GET", "/", more="Range: bytes=" + ",".join(f"{n}-{n}" for n in range(900)) + "\r\n")
        reader, writer = await one.tcp(one.ports.auth)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 500)
        try:
            await asyncio.wait_for(reader.read(100_000), 5)
        finally:
            writer.close()


async def tokens(one: Attacker) -> None:
    """Refreshes without end."""
    token = await one.token()
    while one.goes_on():
        answer = await one.http("POST", "/auth/refresh", more=f"Authorization: Bearer {token}\r\nContent-Length: 0\r\n")
        _, _, body = answer.partition(b"\r\n\r\n")
        token = json.loads(body or b"{}").get("token", token)


async def lists(one: Attacker) -> None:
    """Asks for lists of all params on many connections at once."""
    bearer = f"Authorization: Bearer {await one.token()}\r\n"
    await _all_the_time(one, 12, lambda: one.http("GET", "/api/params?pattern=/chat/**&limit=10000", more=bearer))


async def event_streams(one: Attacker) -> None:
    """Comes back again and again as one who has seen nothing, and reads none of what is sent."""
    token = await one.token()
    client = await one.session()
    room = await one.room(client)
    client.send(*(event(f"{room}/messages", {"type": "text", "text": "x" * 900}) for _ in range(60)))
    opened = []
    while one.goes_on():
        for pattern in (f"{room}/**", "/chat/room/*/meta"):
            _, writer = await one.tcp(one.ports.auth)
            head = f"GET /api/stream?pattern={pattern} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 1\r\n"
            writer.write(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
            opened.append(writer)
        await asyncio.sleep(PAUSE_S)
        if len(opened) > 40:
            opened.pop(0).transport.abort()
    for writer in opened:
        writer.transport.abort()


async def replays(one: Attacker) -> None:
    """Asks for all that history has, in every way."""
    client = await one.session()
    room = await one.room(client)
    client.send(*(event(f"{room}/messages", {"type": "text", "text": "x" * 900}) for _ in range(60)))
    await one.go_on(client, Replay(f"{room}/**"), Replay("/chat/room/*/messages"), Replay(f"{room}/messages", limit=1))


async def half_files(one: Attacker) -> None:
    """Uploads that never end, and many small ones."""
    token = await one.token()
    opened = []
    for _ in range(10):
        _, writer = await one.tcp(one.ports.auth)
        writer.write(f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n".encode())
        writer.write(b"Content-Length: 2000000\r\n\r\n" + b"x" * 200_000)
        opened.append(writer)
    more = f"Authorization: Bearer {token}\r\n"
    while one.goes_on():
        for writer in opened:
            writer.write(b"x")
        await one.http("POST", "/files", b"x" * 5_000, more=more)
    for writer in opened:
        writer.transport.abort()


async def _all_the_time(one: Attacker, at_once: int, ask: Callable[[], Awaitable[object]]) -> None:
    """Asks on so many connections at once, again and again."""

    async def again() -> None:
        while one.goes_on():
            await ask()
            await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(again() for _ in range(at_once)))


async def half_frames(one: Attacker) -> None:
    """WebSocket frames that never end, and claims of great length."""
    client = await one.session()
    client.transport.write(struct.pack(">BBQ", 0x82, 0xFF, 1 << 40))
    other = await one.session()
    other.transport.write(b"\x02\x81\0\0\0\0S")
    while one.goes_on():
        other.transport.write(b"\x00\x81\0\0\0\0A" * 500)
        await asyncio.sleep(PAUSE_S)


KINDS: tuple[Callable[[Attacker], Awaitable[None]], ...] = (
    costly_patterns,
    toggled_patterns,
    many_signals,
    large_values,
    many_params,
    due_at_once,
    catch_ups,
    held_values,
    slow_reader,
    locks_and_nulls,
    impostor,
    babble,
    pings,
    bursts,
    silent_connections,
    reconnects,
    http_flood,
    tokens,
    lists,
    event_streams,
    replays,
    half_files,
    half_frames,
)


async def _attack_again_and_again(ports: Ports, random_: random.Random, end_s: float) -> None:
    number = 0
    # Every kind in turn, so that a minute has them all; in an order that is drawn.
    kinds: list[Callable[[Attacker], Awaitable[None]]] = []
    while time.monotonic() < end_s:
        if not kinds:
            kinds = random_.sample((*KINDS, *DOOR_KINDS), len(KINDS) + len(DOOR_KINDS))
        number += 1
        one = Attacker(ports, random_, number)
        try:
            await kinds.pop()(one)
        except ALLOWED:
            await asyncio.sleep(PAUSE_S)
        finally:
            one.close()


async def _attack(ports: Ports, seed: int, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    lanes = (random.Random(seed + lane) for lane in range(AT_ONCE))
    await asyncio.gather(*(_attack_again_and_again(ports, lane, end_s) for lane in lanes))


def attack(ports: Ports, seed: int, seconds: float) -> None:
    """Attacks for a while; to be run in a process of its own.

    Attackers have machines of their own: here they get what the relay and the honest leave of this one.

    Args:
        ports: the relay's.
        seed: what is drawn follows from it, and from how the relay answers.
        seconds: how long.
    """
    os.nice(NICENESS)
    asyncio.run(_attack(ports, seed, seconds))
