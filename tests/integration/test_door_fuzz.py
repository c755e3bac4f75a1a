"""Whatever a client sends to a door: it is answered in the door's own words, and nobody else is disturbed.

The log has a line for each kind of offence, not for each offence.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from hypothesis import given, seed, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.tickets import Tickets
from clasp_relay.doors.door import DoorCounts, RequestDoor
from clasp_relay.doors.mqtt.broker import Broker
from clasp_relay.doors.mqtt.door import MqttConnection
from clasp_relay.doors.mqtt.publishing import MqttOptions
from clasp_relay.doors.osc import OscClients, OscConnection, OscDatagrams, OscOptions
from clasp_relay.doors.stream import StreamFactory
from clasp_relay.doors.tcp import TcpConnection, wire_bytes
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.cors import Origins
from clasp_relay.http.journal_api import JournalApi
from clasp_relay.http.json_answers import NotFound
from clasp_relay.http.params_api import make_params_resource
from clasp_relay.http.site import make_site
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.logs.levels import LogLevels
from clasp_relay.logs.relay_log import RelayLog
from clasp_relay.wire.codec import encode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Bundle, Get, Hello, Ping, Publish, Query, Replay, Set, Subscribe
from clasp_relay.wire.mqtt.packets import V4, V5, Prop
from clasp_relay.wire.osc.packets import IMMEDIATELY, OscMessage, encode_message
from clasp_relay.wire.osc.slip import encode_slip
from clasp_relay.wire.values import encode_value
from tests.access.test_permissions import AuthWorld
from tests.doors import mqtt_packets as p
from tests.doors.site import DoorClient, Site
from tests.logs.events import collect, said

POLICY = {
    "scopes": ["read:/**", "write:/**"],
    "anonymous": {"scopes": ["read:/open/**", "write:/open/**"], "message_rate": {"per_second": 20, "burst": 40}},
    "write_rules": [{"path": "/open/closed/**", "checks": [{"type": "state_not_null", "lookup": "/open/key"}]}],
}
OFFENDER, HONEST = "192.0.2.66", "192.0.2.1"

MOST_LINES = 8
"""Kinds of lines that one connection of an offender may cause in a minute: it came, what the door refused, what the
relay refused, over the rate, it went."""

_address = st.sampled_from(
    (
        "/open/a",
        "/open/closed/x",
        "/else",
        "/open/*",
        "open",
        "/open//a",
        "/open/\0",
        "/open/" + "x" * 5_000,
        "/clasp/x",
        "",
    )
)
_text = st.one_of(
    _address, st.sampled_from(("open/a", "open/closed/x", "$SYS/x", "#", "+/a", "a/#/b", "$share/g/open/#"))
)
_value = st.sampled_from((None, 1, 0.5, "text", b"\xff", [1, [2]], {"a": 1}, {"__proto__": 1}, "x" * 20_000))
_number = st.sampled_from((0, 1, 2, 16, 255, 65_535))


def _mangled(packets: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Draws packets, some of them damaged: bytes changed, left out or put in."""

    def damage(drawn: tuple[bytes, int, int, bytes]) -> bytes:
        data, kind, place, noise = drawn
        at = place % (len(data) + 1)
        if kind < 3:
            return data
        return {3: data[:at] + noise + data[at:], 4: data[:at] + noise + data[at + len(noise) :], 5: data[:at]}[kind]

    one = st.tuples(packets, st.integers(0, 5), st.integers(0, 1 << 16), st.binary(min_size=1, max_size=6)).map(damage)
    return st.lists(one | st.binary(max_size=40), min_size=1, max_size=12)


@st.composite
def _mqtt(draw: Any) -> bytes:
    version, text = draw(st.sampled_from((V4, V5))), draw(_text)
    payload = draw(st.sampled_from((b"", b"1", b'{"__proto__": 1}', b"null", b"[" * 50, b"\xff\0", b"x" * 70_000)))
    make: Sequence[Callable[[], bytes]] = (
        lambda: p.connect(text, version, keep_alive=draw(_number), password=draw(st.none() | st.just("wrong"))),
        lambda: p.connect(draw(_text), version, will=(text, payload[:9], draw(st.integers(0, 2)), draw(st.booleans()))),
        lambda: p.publish(
            text, payload, version, qos=draw(st.integers(0, 2)), id=draw(_number), retain=draw(st.booleans())
        ),
        lambda: p.publish(
            text, b"", V5, properties={Prop.TOPIC_ALIAS: draw(_number), Prop.MESSAGE_EXPIRY: draw(_number)}
        ),
        lambda: p.subscribe(draw(_number), (text, draw(st.integers(0, 255))), version=version),
        lambda: p.unsubscribe(draw(_number), text, version=version),
        lambda: p.acknowledge(draw(st.sampled_from((0x40, 0x50, 0x62, 0x70))), draw(_number)),
        lambda: draw(st.sampled_from((p.PINGREQ, p.DISCONNECT))),
    )
    made: Callable[[], bytes] = draw(st.sampled_from(make))
    return made()


@st.composite
def _clasp(draw: Any) -> bytes:
    address = draw(_address)
    value = encode_value(draw(_value))
    message = draw(
        st.sampled_from(
            (
                Hello(1, 0, "x", draw(st.sampled_from(("", "wrong", "\0")))),
                Set(
                    address,
                    value,
                    draw(st.none() | st.integers(0, 9)),
                    draw(st.booleans()),
                    False,
                    draw(st.none() | _number),
                ),
                Publish(address, value=value),
                Subscribe(draw(_number), address),
                Get(address),
                Query(address),
                Replay(address, None, None, None, 0xFF),
                Bundle((Set(address, value), Publish(address))),
                Ping(),
            )
        )
    )
    return wire_bytes(encode_frame(encode(message), draw(st.integers(0, 1))))


@st.composite
def _osc(draw: Any) -> bytes:
    arguments = draw(st.lists(st.sampled_from((1, 0.5, "text", b"x", True, None, (1, "a"))), max_size=4))
    message = OscMessage(draw(_address.filter(lambda text: "\0" not in text)), tuple(arguments))
    if draw(st.booleans()):
        return encode_message(message)
    packet = encode_message(message)
    time_tag = draw(st.sampled_from((IMMEDIATELY, 0, 1 << 62, (1 << 64) - 1)))
    return b"#bundle\0" + struct.pack(">Q", time_tag) + 2 * (struct.pack(">I", len(packet)) + packet)


@st.composite
def _http(draw: Any) -> bytes:
    method = draw(st.sampled_from(("GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "BREW")))
    path = draw(
        st.sampled_from(
            (
                "/api/params/open/a",
                "/api/params/open/%2Fa",
                "/api/params/open/%FF",
                "/api/params/else",
                "/api/params?pattern=/open/**&limit=0",
                "/api/params?pattern=%FF",
                "/api/events/open/closed/x",
                "/api/bundle",
                "/api/stream?pattern=/else",
                "/api/stream?pattern=a&ticket=b",
                "/api/journal/query?from=x",
                "/api/params/open/a?ttl=-1",
                "/api/nothing",
                "/",
            )
        )
    )
    body = draw(
        st.sampled_from((b"", b"1", b"{", b'{"messages": [{}]}', b"[" * 60, b"\xff", b'{"a":1,"a":2}', b"x" * 20_000))
    )
    headers = draw(
        st.lists(
            st.sampled_from(
                (
                    "Authorization: Bearer wrong",
                    "Authorization: Basic x",
                    "If-Match: 7",
                    'If-Match: "9"',
                    "Last-Event-ID: 99999999999",
                    "Content-Type: application/octet-stream",
                    "Expect: 100-continue",
                    "Host: [",
                )
            ),
            max_size=3,
        )
    )
    head = "\r\n".join((f"{method} {path} HTTP/1.1", f"Content-Length: {len(body)}", *headers))
    sent: bytes = f"{head}\r\n\r\n".encode() + body
    return sent


class House:
    """A relay with accounts, its log, an honest listener, and a door."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.case = case
        self.site = site = Site(permissions=AuthWorld(POLICY).relay.permissions)
        self.log = RelayLog(LogLevels.parse("info"), site.clock)
        site.relay.observer = self.log
        self.listener = site.clasp("reader")
        site.say(self.listener, Subscribe(1, "/open/honest"))
        self.number = 0

    def refused(self, door: str) -> Callable[[str, str], None]:
        """Returns what tells the log of what a door has refused."""
        return lambda host, why: self.log.door_refused(door, host, why)

    def check(self, lines: list[tuple[str, str]], say: Callable[[int], None]) -> None:
        """Looks at what is left of an offence: an honest client is heard, and the log tells it in few lines."""
        self.site.turn()
        told = [text for _, text in lines if OFFENDER in text or "refused" in text or "rate limit" in text]
        self.case.assertLessEqual(len(told), MOST_LINES, told)
        self.case.assertEqual(self.site.faults, [])
        self.number += 1
        self.listener.clear()
        say(self.number)
        self.site.turn()
        self.listener.turn()
        self.case.assertIn(b"/open/honest", bytes(self.listener.pipe.taken))
        param = self.site.relay.params.get("/open/honest")
        assert param is not None, "the honest client was not heard"
        self.case.assertEqual(param.value, encode_value(self.number))


class DoorFuzzTests(SynchronousTestCase):
    """Each door with an offender and an honest client; what a fault of ours would log fails the test."""

    def setUp(self) -> None:
        """Collects the log."""
        self.events = collect(self)

    def offend(self, house: House, factory: Any, data: Sequence[bytes]) -> DoorClient:
        """Sends bytes from the offender's address, again when its connection was closed."""
        client = house.site.connect(factory, OFFENDER)
        for piece in data:
            client.send(piece)
        return client

    @seed(1)
    @settings(max_examples=100, deadline=None, database=None)
    @given(data=_mangled(_mqtt()), begins=st.booleans())
    def test_mqtt(self, data: list[bytes], begins: bool) -> None:
        """After a CONNECT or as the first bytes."""
        house = House(self)
        site = house.site
        broker = Broker(site.relay, site.gate, MqttOptions(namespace="/"), house.refused("MQTT"))
        factory = StreamFactory(site.gate, broker.counts, lambda: MqttConnection(broker))
        honest = site.connect(factory, HONEST)
        honest.send(p.connect("honest", V5, password="other"))
        said(self.events)
        client = self.offend(house, factory, [p.connect("offender", V5), *data] if begins else data)
        client.pipe.lose()
        site.turn()
        house.check(
            said(self.events), lambda number: honest.send(p.publish("open/honest", str(number), V5, retain=True))
        )

    @seed(1)
    @settings(max_examples=100, deadline=None, database=None)
    @given(data=_mangled(_clasp()), begins=st.booleans())
    def test_framed_tcp(self, data: list[bytes], begins: bool) -> None:
        """After a HELLO or as the first bytes."""
        house = House(self)
        gate, counts = house.site.gate, DoorCounts("tcp")
        factory = StreamFactory(gate, counts, lambda: TcpConnection(gate, counts))

        def framed(*messages: Any) -> bytes:
            return b"".join(wire_bytes(encode_frame(encode(each))) for each in messages)

        honest = house.site.connect(factory, HONEST)
        honest.send(framed(Hello(1, 0, "honest", "other")))
        said(self.events)
        client = self.offend(house, factory, [framed(Hello(1, 0, "offender")), *data] if begins else data)
        client.pipe.lose()
        house.site.turn()
        house.check(said(self.events), lambda number: honest.send(framed(Set("/open/honest", encode_value(number)))))

    @seed(1)
    @settings(max_examples=100, deadline=None, database=None)
    @given(data=_mangled(_osc()), is_stream=st.booleans())
    def test_osc(self, data: list[bytes], is_stream: bool) -> None:
        """As datagrams, each from another port, and between SLIP's ENDs."""
        house = House(self)
        site = house.site
        options = OscOptions(namespace="/", allows=lambda _host: True)
        clients = OscClients(site.relay, site.gate, options, DoorCounts("osc"), house.refused("OSC"))
        port: Any = OscDatagrams(clients, site.reactor)
        port.transport = self
        said(self.events)
        if is_stream:
            factory = StreamFactory(site.gate, clients.counts, lambda: OscConnection(site.gate, clients))
            self.offend(house, factory, [encode_slip(each) for each in data] + data)
        else:
            for number, each in zip(count(9_000), data, strict=False):
                port.datagramReceived(each, (OFFENDER, number))
        site.turn()
        house.check(
            said(self.events),
            lambda number: port.datagramReceived(
                encode_message(OscMessage("/open/honest", (number,))), (HONEST, 9_000)
            ),
        )

    def write(self, _packet: bytes, _peer: object) -> None:
        """Takes what is sent back, as the port's transport."""

    @seed(1)
    @settings(max_examples=100, deadline=None, database=None)
    @given(data=_mangled(_http()))
    def test_http(self, data: list[bytes]) -> None:
        """Each on a connection of its own, and all on one."""
        house = House(self)
        site = house.site
        sessions = ApiSessions(site.relay)
        streams = StreamApi(site.relay, site.gate, Tickets(site.reactor.seconds, lambda _: ""), house.log.door_refused)
        root = NotFound()
        api = make_params_resource(
            sessions,
            streams,
            origins=Origins(None),
            addresses=ClientAddresses(()),
            journal=JournalApi(site.relay, sessions),
            door=RequestDoor("http", "HTTP", house.log.door_refused),
        )
        root.putChild(b"api", api)
        web: Any = make_site(root, site.reactor)
        web.startFactory()
        said(self.events)
        heard = b""
        for pieces in ([b"".join(data)], *([each] for each in data)):
            client = self.offend(house, web, pieces)
            heard += client.heard()
            client.pipe.lose()
            site.turn()
        self.assertNotIn(b"HTTP/1.1 500", heard)
        for body in re.findall(rb'\r\n\r\n(\{"error": .*?\})(?=HTTP/1\.1|$)', heard, re.DOTALL):
            self.assertTrue(json.loads(body)["error"], body)

        def say(number: int) -> None:
            head = "PUT /api/params/open/honest HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer other\r\n"
            body = str(number)
            site.connect(web, HONEST).send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())

        house.check(said(self.events), say)
        sessions.close()

    def test_offenders_have_a_line_a_minute(self) -> None:
        """However often they offend, and however many connections and ports they do it from."""
        house = House(self)
        site = house.site
        broker = Broker(site.relay, site.gate, MqttOptions(), house.refused("MQTT"))
        things = StreamFactory(site.gate, broker.counts, lambda: MqttConnection(broker))
        options = OscOptions(namespace="/", allows=lambda _host: True)
        clients = OscClients(site.relay, site.gate, options, DoorCounts("osc"), house.refused("OSC"))
        port: Any = OscDatagrams(clients, site.reactor)
        port.transport = self
        said(self.events)
        for number in range(50):
            port.datagramReceived(b"/damaged", (OFFENDER, 9_000 + number))
            port.datagramReceived(encode_message(OscMessage("/else", (1,))), (OFFENDER, 9_000 + number))
            self.offend(house, things, [p.connect("x", V5, password="wrong")])
            self.offend(house, things, [b"\x10\x02\0\0"])
        site.turn(61)
        lines = [text for _, text in said(self.events)]
        self.assertEqual(len([line for line in lines if line.startswith("OSC: messages from")]), 2, lines)
        self.assertEqual(len([line for line in lines if line.startswith("MQTT: messages from")]), 2, lines)
        self.assertEqual(len([line for line in lines if "over its rate limit" in line]), 2, lines)
        self.assertEqual(len(lines), 8, lines)
