"""Where MQTT comes in."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.doors.mqtt.door import MqttDoor, MqttOverWebSocket
from clasp_relay.net.admission import NetLimits
from clasp_relay.net.listening import TcpPlace
from tests.core.guard import Guard
from tests.doors import mqtt_packets as p
from tests.doors.mqtt.house import House
from tests.net.helpers import Client, Pipe, client_frame, server_frames


class ConnectionTests(SynchronousTestCase):
    def test_client_without_connect_is_ended(self) -> None:
        """After 10 s."""
        house = House()
        thing = house.connect()
        house.site.turn(11)
        self.assertTrue(thing.client.is_closed)
        thing.lose()
        self.assertEqual(house.broker.counts.clients, 0)

    def test_one_client_too_many_is_closed(self) -> None:
        """The limit is that of all sessions."""
        house = House(limits=NetLimits(max_sessions=1))
        house.join()
        self.assertTrue(house.connect().client.is_closed)


class WebSocketTests(SynchronousTestCase):
    def test_mqtt_is_a_subprotocol(self) -> None:
        """Packets may be cut anywhere between WebSocket messages; keep-alive and the end are MQTT's."""
        house = House()
        house.site.gate.others["mqtt"] = (MqttOverWebSocket(house.broker), house.broker.publisher.codec)
        client = Client(house.site, house.site.gate.buildProtocol(None), Pipe(house.site.reactor))  # type: ignore[arg-type]
        client.send(
            b"GET / HTTP/1.1\r\nHost: relay.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        self.assertIn("Sec-WebSocket-Protocol: mqtt", client.head)
        client.clear()
        data = p.connect("ws") + p.subscribe(1, ("a", 0))
        client.send(*(client_frame(data[at : at + 5]) for at in range(0, len(data), 5)))
        house.join().say(p.publish("a", "hello"))
        client.turn()
        found = b"".join(payload for _, payload in server_frames(bytes(client.pipe.taken)))
        self.assertEqual(
            [p.said(each) for each in p.split(found)[0]], ["connack 0 0x0", "suback 1 00", "publish a hello qos 0"]
        )
        self.assertEqual(house.broker.counts.clients, 2)
        client.send(client_frame(p.DISCONNECT))
        client.turn()
        client.pipe.lose()
        house.site.turn()
        self.assertEqual((house.broker.counts.clients, len(house.site.relay.sessions)), (1, 1))


class DoorTests(SynchronousTestCase):
    def test_door_listens_until_it_is_closed(self) -> None:
        """On one or two ports, once."""
        house = House(Guard())
        place = TcpPlace("127.0.0.1", 1883)
        door = MqttDoor(house.site.reactor, place, None, house.broker)
        for _ in range(2):
            door.open(None)
        self.assertEqual([each[0] for each in house.site.reactor.tcpServers], [1883])
        door.started(7330)
        door.close()
        self.assertFalse(door.ports)
