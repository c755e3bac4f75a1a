"""Attackers at the doors for MQTT, OSC and framed TCP; for ``tests.integration.attackers``."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from clasp_relay.wire.codec import encode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Get, Hello, Publish, Query, Replay, Set, Subscribe, Unsubscribe
from clasp_relay.wire.mqtt.packets import V5
from clasp_relay.wire.values import encode_value
from tests.doors import mqtt_packets
from tests.integration.attacker import PAUSE_S, Attacker

SLIP_END = b"\xc0"


async def _again_and_again(one: Attacker, writer: asyncio.StreamWriter, *pieces: bytes) -> None:
    """Writes the same again and again, no faster than the socket takes it, and reads nothing."""
    try:
        while one.goes_on() and not writer.is_closing():
            if writer.transport.get_write_buffer_size() < 1 << 20:
                writer.writelines(pieces)
            await asyncio.sleep(PAUSE_S)
    finally:
        writer.transport.abort()


async def _mqtt(one: Attacker, client_id: str = "", **options: Any) -> asyncio.StreamWriter:
    _, writer = await one.tcp(one.ports.mqtt)
    token = await one.token()
    writer.write(mqtt_packets.connect(client_id, V5, password=token, **options))
    return writer


async def mqtt_filters(one: Attacker) -> None:
    """Subscribes to a thousand filters in one packet, and ends them in another."""
    writer = await _mqtt(one)
    filters = [f"{one.folder[1:]}/+/{number}/#" for number in range(900)] + ["chat/#", "+/+/+/+"]
    ask = mqtt_packets.subscribe(1, *((each, 1) for each in filters), version=V5)
    await _again_and_again(one, writer, ask, mqtt_packets.unsubscribe(2, *filters, version=V5))


async def mqtt_messages(one: Attacker) -> None:
    """Publishes long JSON, retained and not, with QoS 2 that is never released."""
    writer = await _mqtt(one)
    nested = json.dumps([{"a": [number, {"b": "c" * 20}]} for number in range(900)])
    topic = one.folder[1:]
    packets = [
        mqtt_packets.publish(f"{topic}/{number}", nested, V5, qos=2, id=number + 1, retain=number % 2 == 0)
        for number in range(20)
    ]
    await _again_and_again(one, writer, *packets)


async def mqtt_kept_sessions(one: Attacker) -> None:
    """Comes with another client id each time, with a will and filters that are to be kept, and is torn off."""
    number = 0
    topic = one.folder[1:]
    while one.goes_on():
        number += 1
        writer = await _mqtt(
            one, f"{one.name}-{number}", clean=False, will=(f"{topic}/will", b"x" * 20_000, 1, True), keep_alive=60
        )
        writer.write(mqtt_packets.subscribe(1, (f"{topic}/#", 1), version=V5))
        writer.write(mqtt_packets.publish(f"{topic}/x", "y" * 900, V5))
        await asyncio.sleep(PAUSE_S)
        writer.transport.abort()


async def mqtt_babble(one: Attacker) -> None:
    """Packets that end too early, that never end, and that no client sends."""
    while one.goes_on():
        _, writer = await one.tcp(one.ports.mqtt)
        for piece in (b"\x10\xff\xff\xff\x7f", b"\x82\x05abc", b"\xff" * 200, mqtt_packets.connect("x" * 60_000)):
            writer.write(piece)
            await asyncio.sleep(PAUSE_S)
        writer.transport.abort()


def _osc_text(text: str) -> bytes:
    data = text.encode() + b"\0"
    return data + bytes(-len(data) % 4)


def _osc(address: str, *numbers: float) -> bytes:
    types = _osc_text("," + "f" * len(numbers))
    return _osc_text(address) + types + struct.pack(f">{len(numbers)}f", *numbers)


def _osc_bundle(*members: bytes, time: int = 1) -> bytes:
    return b"#bundle\0" + struct.pack(">Q", time) + b"".join(struct.pack(">I", len(each)) + each for each in members)


def _osc_packets(one: Attacker) -> list[bytes]:
    folder = f"/{one.name}"
    nested = _osc(f"{folder}/n", 1.0)
    for _ in range(200):
        nested = _osc_bundle(nested)
    return [
        _osc(f"{folder}/many", *range(2_000)),
        _osc_bundle(*(_osc(f"{folder}/{number}", number) for number in range(200))),
        _osc_bundle(*(_osc(f"{folder}/later/{number}", number) for number in range(200)), time=0xFFFF_FFFF << 32),
        _osc("/{chat,x}/*/[a-z]*/?*", 1.0),
        nested,
        b"#bundle\0\0\0\0\0\0\0\0\1\xff\xff\xff\xff",
        bytes(9_000),
    ]


async def osc_packets(one: Attacker) -> None:
    """Long, nested and late bundles, patterns and nonsense over UDP, from a hundred ports."""
    packets = _osc_packets(one)
    sockets = []
    try:
        for _ in range(100):
            sender = socket.socket(type=socket.SOCK_DGRAM)
            sockets.append(sender)
            sender.setblocking(False)
            sender.bind((one.source, 0))
        while one.goes_on():
            for number, sender in enumerate(sockets):
                try:
                    sender.sendto(packets[number % len(packets)], ("127.0.0.1", one.ports.osc))
                except BlockingIOError:
                    break
            await asyncio.sleep(PAUSE_S)
    finally:
        for sender in sockets:
            sender.close()


async def osc_streams(one: Attacker) -> None:
    """The same over TCP, and a packet that never ends."""
    _, writer = await one.tcp(one.ports.osc_tcp)
    packets = [SLIP_END + packet.replace(b"\xdb", b"").replace(SLIP_END, b"") for packet in _osc_packets(one)]
    writer.write(b"".join(packets) + SLIP_END)
    await _again_and_again(one, writer, b"a" * 5_000)


async def framed_messages(one: Attacker) -> None:
    """Costly messages over framed TCP, all in one write, whose answers are not read; then a length that is none."""
    _, writer = await one.tcp(one.ports.tcp)
    folder = one.folder
    messages = (
        Subscribe(1, f"{folder}/**" + "/a*b/**" * 15, 0xFF),
        Unsubscribe(1),
        Set(f"{folder}/x", encode_value("x" * 9_000)),
        Publish(f"{folder}/e", value=encode_value({"text": "x" * 900})),
        Query("/**"),
        Replay("/chat/**"),
        Get(f"{folder}/x"),
    )
    frames = [encode_frame(encode(Hello(1, 0xFF, one.name, await one.token())))]
    frames += [encode_frame(encode(each), 1) for each in messages * 5]
    writer.write(struct.pack(">I", len(frames[0])) + frames.pop(0))
    await _again_and_again(one, writer, b"".join(struct.pack(">I", len(frame)) + frame for frame in frames))
    _, writer = await one.tcp(one.ports.tcp)
    writer.write(b"\xff" * 9)
    writer.close()


DOOR_KINDS: tuple[Callable[[Attacker], Awaitable[None]], ...] = (
    mqtt_filters,
    mqtt_messages,
    mqtt_kept_sessions,
    mqtt_babble,
    osc_packets,
    osc_streams,
    framed_messages,
)
