"""MQTT with real clients, and the same script on mosquitto and the relay, with the same answers."""

from __future__ import annotations

import json
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from twisted.trial.unittest import SkipTest

from clasp_relay.access.permissions import REVOKED
from clasp_relay.wire.messages import Publish, Set, Subscribe
from clasp_relay.wire.mqtt.packets import V4, V5, Prop, Properties
from clasp_relay.wire.values import decode_value, encode_value
from tests.certificates import HOST, issue
from tests.doors import mqtt_packets as p
from tests.integration.accounts import AccountsTestCase, told
from tests.integration.doors import door_port
from tests.integration.node import NodeProcess
from tests.integration.process import PATIENCE_S, RelayProcess, RelayTestCase, wait_until
from tests.integration.raw import RawClient
from tests.ports import free_port


class Peer:
    """An MQTT client over a socket, which says what it is told to say."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.settimeout(PATIENCE_S)
        self._data = b""
        self.version = V4

    def send(self, data: bytes) -> None:
        """Sends bytes."""
        self._socket.sendall(data)

    def settle(self) -> list[bytes]:
        """Returns what was sent to this client up to the answer to a ping, or to the end of the connection."""
        found: list[bytes] = []
        try:
            # Whoever writes to a connection that was closed loses what came before.
            while select.select([self._socket], [], [], 0)[0]:
                piece = self._socket.recv(65_536)
                if not piece:
                    return [*found, b""]
                packets, self._data = p.split(self._data + piece)
                found += packets
            self._socket.sendall(p.PINGREQ)
            while not found or found[-1] != b"\xd0\0":
                piece = self._socket.recv(65_536)
                if not piece:
                    return [*found, b""]
                packets, self._data = p.split(self._data + piece)
                found += packets
        except (ConnectionResetError, BrokenPipeError):
            return [*found, b""]
        return found[:-1]

    def close(self) -> None:
        """Ends the connection without a word."""
        self._socket.close()


def exchanges(version: int) -> Iterator[tuple[str, bytes]]:
    """Yields who sends what: more than 50 steps for each version."""
    five = version == V5

    def sub(number: int, *filters: tuple[str, int]) -> bytes:
        return p.subscribe(number, *filters, version=version)

    def pub(topic: str, payload: str, qos: int = 0, number: int = 0, **more: object) -> bytes:
        return p.publish(topic, payload, version, qos=qos, id=number, **more)

    expiry: Properties | None = {Prop.SESSION_EXPIRY: 100} if five else None
    for name in ("a", "b", "c"):
        yield name, p.connect(name, version)
    yield "kept", p.connect("kept", version, clean=False, properties=expiry)
    yield "a", sub(1, ("x/+", 0), ("y/#", 1))
    yield "b", sub(1, ("#", 2))
    yield "kept", sub(1, ("k/#", 1))
    for number, topic in enumerate(("x/1", "x/1/2", "x", "y", "y/1/2", "z"), 1):
        for qos in (0, 1, 2):
            # A server may pass a message with QoS 2 on at PUBLISH or at PUBREL ([5] 4.3.3).
            release = p.acknowledge(0x62, number) if qos == 2 else b""
            yield "c", pub(topic, f"{number}{qos}", qos, number) + release
    for number, payload in enumerate(('{"a": 1.50}', "text", "12", "\x01\x02", '"q"'), 1):
        yield "c", pub(f"r/{number}", payload, 1, number, retain=True)
        yield f"reader{number}", p.connect(f"reader{number}", version)
        yield f"reader{number}", sub(1, (f"r/{number}", 1))
    yield "c", pub("r/1", "", 1, 9, retain=True)
    yield "reader1", sub(2, ("r/1", 2), ("r/2", 0))
    yield "reader2", p.unsubscribe(3, "r/2", "never", version=version)
    yield "c", pub("r/2", "again", 0, retain=True)
    yield "a", p.unsubscribe(4, "x/+", version=version)
    yield "c", pub("x/1", "unheard")
    yield "c", pub("k/1", "heard", 1, 1)
    yield "kept", b""
    yield "c", pub("k/2", "waits", 1, 2)
    yield "c", pub("k/3", "not kept", 0)
    yield "kept", p.connect("kept", version, clean=False, properties=expiry)
    yield "own", p.connect("own", version)
    yield "own", sub(1, ("o", 1))
    yield "own", pub("o", "back", 1, 1)
    yield "dup", p.connect("own", version)
    yield "will", p.connect("will", version, will=("y/will", b"gone", 1, False))
    yield "will", b""
    yield "bad", p.connect("bad", version)
    yield "bad", b"\x36\x05\0\3a/b"
    yield "c", pub("y/last", "1", 1, 7)
    if five:
        yield "five", p.connect("five", version)
        yield "five", sub(1, ("n/1", 4), ("n/2", 0x18), ("r/4", 0x20), ("r/5", 0x10))
        yield "five", pub("n/1", "own")
        yield "five", pub("n/2", "as published", retain=True)
        yield "c", pub("n/1", "other")
        yield "five", sub(2, ("r/5", 0x10))


def run(port: int, version: int) -> list[tuple[str, bytes, dict[str, list[str]]]]:
    """Runs the script against a broker; returns after each step what everybody got, in words."""
    peers: dict[str, Peer] = {}
    found = []
    for name, data in exchanges(version):
        if not data:
            peers.pop(name).close()
            time.sleep(0.1)
        else:
            if name not in peers:
                peers[name] = Peer(port)
            peers[name].send(data)
        # The relay bounds PINGREQs to 50 a second.
        time.sleep(0.025)
        got: dict[str, list[str]] = {}
        for each in [name, *(other for other in peers if other != name)]:
            if each in peers:
                packets = peers[each].settle()
                words = ["closed" if not one else p.said(one, version) for one in packets]
                # Where version 5 only says SHOULD: not every mosquitto says why it closes.
                words = [word for word in words if not word.startswith("disconnect")]
                # The answer to a message and the message itself, where it comes back, have no order.
                got[each] = sorted(words, key=lambda word: word.startswith("publish"))
                if b"" in packets:
                    peers.pop(each).close()
        found.append((name, data, {each: said for each, said in got.items() if said}))
    for peer in peers.values():
        peer.close()
    return found


def has(collected: list[tuple[str, bytes, int]], number: int) -> bool:
    """Says whether so many came."""
    return len(collected) == number


def setter(event: threading.Event) -> Callable[..., None]:
    """Returns what sets an event, whatever it is called with."""

    def set_it(*_arguments: object) -> None:
        event.set()

    return set_it


def collector(came: list[tuple[str, bytes, int]]) -> Callable[[Any, Any, paho.MQTTMessage], None]:
    """Returns what collects the messages of a client."""

    def collect(_client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        came.append((message.topic, bytes(message.payload), message.qos))

    return collect


class MqttTests(RelayTestCase):
    def mosquitto(self) -> int:
        """Starts mosquitto and returns its port."""
        port = free_port()
        config = self.folder / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n", "utf-8")
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def is_up() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(is_up, "mosquitto listens")
        return port

    def test_relay_answers_as_mosquitto_does(self) -> None:
        """More than a hundred exchanges: connects, QoS, retained messages, filters, kept sessions, wills, take-over."""
        mosquitto, relay = self.mosquitto(), self.start("--mqtt-port", "0")
        for version in (V4, V5):
            expected = run(mosquitto, version)
            found = run(door_port(relay, "MQTT"), version)
            self.assertGreater(len(found), 50)
            for theirs, ours in zip(expected, found, strict=True):
                with self.subTest(version=version, who=theirs[0], sent=theirs[1]):
                    self.assertEqual(ours, theirs)

    def test_mosquitto_clients_and_clasp_share_a_state(self) -> None:
        """mosquitto_pub sets what CLASP hears, mosquitto_sub prints what CLASP sets."""
        relay = self.start("--mqtt-port", "0")
        browser = RawClient.live(relay.port)
        self.addCleanup(browser.close)
        browser.send(Subscribe(1, "/mqtt/**"))
        browser.settle()
        port = str(door_port(relay, "MQTT"))
        for payload, value in (('{"on": true}', {"on": True}), ("21.5", 21.5), ("hello", "hello")):
            subprocess.run(["mosquitto_pub", "-p", port, "-t", "lamp/1", "-m", payload, "-r", "-q", "2"], check=True)
            self.assertEqual(decode_value(browser.receive(Set).value), value)
        browser.send(Set("/mqtt/lamp/2", encode_value({"level": [1, 2]})))
        browser.settle()
        command = ["mosquitto_sub", "-V", "5", "-p", port, "-t", "lamp/#", "-C", "2", "-F", "%r %q %t %p", "-q", "1"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout
        self.assertEqual(sorted(printed.splitlines()), ["1 1 lamp/1 hello", '1 1 lamp/2 {"level":[1,2]}'])

    def paho(self, relay: RelayProcess, protocol: MQTTProtocolVersion, transport: str = "tcp") -> paho.Client:
        """Returns a client of paho-mqtt that is connected."""
        client = paho.Client(
            CallbackAPIVersion.VERSION2, protocol=protocol, transport="websockets" if transport != "tcp" else "tcp"
        )
        connected = threading.Event()
        client.on_connect = setter(connected)
        client.connect("127.0.0.1", relay.port if transport != "tcp" else door_port(relay, "MQTT"))
        client.loop_start()
        self.addCleanup(client.loop_stop)
        self.addCleanup(client.disconnect)
        self.assertTrue(connected.wait(PATIENCE_S))
        return client

    def test_paho_speaks_with_the_relay(self) -> None:
        """Both versions, each QoS, over TCP and WebSocket."""
        relay = self.start("--mqtt-port", "0")
        for protocol in (MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5):
            for transport in ("tcp", "websockets"):
                with self.subTest(protocol=protocol, transport=transport):
                    client = self.paho(relay, protocol, transport)
                    came: list[tuple[str, bytes, int]] = []
                    client.on_message = collector(came)
                    subscribed = threading.Event()
                    client.on_subscribe = setter(subscribed)
                    client.subscribe("p/#", 2)
                    self.assertTrue(subscribed.wait(PATIENCE_S))
                    for qos in (0, 1, 2):
                        client.publish(f"p/{qos}", json.dumps({"qos": qos}), qos).wait_for_publish(PATIENCE_S)
                    wait_until(partial(has, came, 3), "all three came back")
                    self.assertEqual(
                        sorted(came), [(f"p/{qos}", json.dumps({"qos": qos}).encode(), qos) for qos in (0, 1, 2)]
                    )

    def test_curl_publishes_and_subscribes(self) -> None:
        """Where it was built with MQTT."""
        features = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
        if " mqtt" not in features:
            raise SkipTest("this curl speaks no MQTT")
        relay = self.start("--mqtt-port", "0")
        browser = RawClient.live(relay.port)
        self.addCleanup(browser.close)
        browser.send(Subscribe(1, "/mqtt/**"))
        browser.settle()
        url = f"mqtt://127.0.0.1:{door_port(relay, 'MQTT')}/lamp"
        subprocess.run(["curl", "--silent", "--data", "80", url], check=True)
        told = browser.receive(Publish)
        assert told.value is not None
        self.assertEqual((told.address, decode_value(told.value)), ("/mqtt/lamp", 80))
        browser.send(Set("/mqtt/lamp", encode_value("on")))
        browser.settle()
        listener = subprocess.Popen(["curl", "--silent", "--no-buffer", url], stdout=subprocess.PIPE)
        self.addCleanup(listener.communicate)
        self.addCleanup(listener.kill)
        assert listener.stdout is not None
        # curl prints the topic behind its length, then the payload.
        self.assertEqual(listener.stdout.read(8), b"\x00\x04lampon")

    def test_mqtt_js_speaks_with_the_relay_over_websocket(self) -> None:
        """Both versions, each QoS, and a retained message."""
        relay = self.start("--mqtt-port", "0")
        script = NodeProcess("mqtt.mjs", relay.url)
        self.addCleanup(script.kill)
        status, output, errors = script.end()
        self.assertEqual(status, 0, errors)
        expected = [
            ["js/0", '{"kept": true}', 1, True],
            *([f"js/{qos + 1}", f"qos {qos}", qos, False] for qos in range(3)),
        ]
        for line in output.splitlines():
            self.assertEqual(sorted(json.loads(line)), expected)
        self.assertEqual(len(output.splitlines()), 2)


class TlsTests(RelayTestCase):
    def test_mosquitto_and_paho_come_over_tls(self) -> None:
        """With the relay's certificate, which they check; a client that does not trust it is not let in by itself."""
        issued = issue()
        certificate, key = map(str, issued.write(self.folder))
        relay = self.start("--mqtts-port", "0", "--tls-cert", certificate, "--tls-key", key)
        port = door_port(relay, "MQTT over TLS")
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.tls_set(certificate)
        subscribed = threading.Event()
        came: list[tuple[str, bytes, int]] = []
        client.on_subscribe, client.on_message = setter(subscribed), collector(came)
        client.connect(HOST, port)
        client.loop_start()
        self.addCleanup(client.loop_stop)
        self.addCleanup(client.disconnect)
        client.subscribe("lamp", 1)
        self.assertTrue(subscribed.wait(PATIENCE_S))
        publish = ("mosquitto_pub", "-h", HOST, "-p", str(port), "-t", "lamp", "-m", "80", "-r", "-q", "1")
        subprocess.run([*publish, "--cafile", certificate], check=True, timeout=PATIENCE_S)
        wait_until(partial(has, came, 1), "the message came over TLS")
        self.assertEqual(came, [("lamp", b"80", 1)])
        (self.folder / "other").mkdir()
        stranger, _ = issue().write(self.folder / "other")
        refused = subprocess.run([*publish, "--cafile", str(stranger)], check=False, capture_output=True)
        self.assertNotEqual(refused.returncode, 0)


class AccountTests(AccountsTestCase):
    """Names and passwords of accounts."""

    def test_mosquitto_signs_in_with_a_name_and_a_password(self) -> None:
        """Another password is refused; a change of it ends the client."""
        (self.folder / "policy.json").write_text(json.dumps({"scopes": ["read:/mqtt/**", "write:/mqtt/**"]}), "utf-8")
        relay = self.start_accounts("--mqtt-port", "0", "--app-config", "policy.json")
        token = relay.api.register("Alice", "password")
        port = str(door_port(relay, "MQTT"))
        who = ("-h", "127.0.0.1", "-p", port, "-u", "Alice", "-q", "1")
        publish = ("mosquitto_pub", *who, "-t", "lamp", "-r")
        subprocess.run([*publish, "-P", "password", "-m", "80"], check=True)
        wrong = subprocess.run([*publish, "-P", "wrong", "-m", "7"], check=False, capture_output=True, text=True)
        self.assertNotEqual(wrong.returncode, 0)
        reader = self.sign_in(relay, token)
        self.assertEqual(told(reader.ask(Subscribe(1, "/mqtt/**"))), [("/mqtt/lamp", 80)])
        listener = subprocess.Popen(
            ["mosquitto_sub", *who, "-P", "password", "-t", "lamp", "-V", "5"], stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(listener.communicate)
        self.addCleanup(listener.kill)
        assert listener.stdout is not None
        self.assertEqual(listener.stdout.readline(), "80\n")
        answer = relay.api.call("password", {"old": "password", "new": "new password"}, token)
        self.assertEqual(answer.status, 200)
        wait_until(lambda: f"{REVOKED.reason} (user " in relay.log, "the client is ended")
