"""Where push messages go, and where they never do."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from threading import Event
from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.protocol import connectionDone as CONNECTION_DONE
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import URI, ResponseFailed
from twisted.web.server import NOT_DONE_YET

from clasp_relay.access.refusals import Busy
from clasp_relay.push import destinations
from clasp_relay.push.destinations import (
    CONNECTION_S,
    MAX_ANSWER_BYTES,
    ForbiddenPlaceError,
    LookUps,
    Place,
    Places,
    is_public,
    make_agent,
    place_of,
)
from tests.push.push_service import PushService

REACTOR: Any = reactor

PRIVATE = (
    "127.0.0.1",
    "127.255.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.1",
    "192.0.0.192",
    "192.88.99.1",
    "168.63.129.16",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fec0::1",
    "64:ff9b:1::808:808",
    "2002:a83f:8110::",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "no address",
    "",
)


class PlaceTests(SynchronousTestCase):
    """Which URLs and addresses are taken."""

    def test_only_https_urls_of_names_are_taken(self) -> None:
        """Of hosts by name or IPv4 address, without a password, on any port."""
        self.assertEqual(place_of("https://push.example/a?b"), Place("push.example", 443))
        self.assertEqual(place_of("https://push.example:8443/").origin, "https://push.example:8443")
        self.assertEqual(place_of("https://PUSH.example/").origin, "https://push.example")
        for endpoint in (
            "http://push.example/",
            "ftp://push.example/",
            "//push.example/",
            "https:///a",
            "https://",
            "",
            "https://a@push.example/",
            "https://a:b@push.example/",
            "https://[::1]/",
            "https://push.example:0/",
            "https://push.example:99999/",
            "https://push.example/ a",
            "https://push.example/\r\nX: y",
            "https://push.example\\@127.0.0.1/",
            "https://püsh.example/",
            "https://push.example/" + "a" * 1_024,
        ):
            with self.subTest(endpoint=endpoint):
                self.assertRaises(ForbiddenPlaceError, place_of, endpoint)

    def test_addresses_that_are_not_public(self) -> None:
        """Nor those of which a part is an IPv4 address that is not."""
        for address in PRIVATE:
            with self.subTest(address=address):
                self.assertFalse(is_public(address))
        for address in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"):
            with self.subTest(address=address):
                self.assertTrue(is_public(address))

    def found(self, addresses: Sequence[str], place: Place, *allowed: str) -> list[str]:
        """Returns the addresses that are connected to."""
        places = Places(lambda *_: succeed(list(addresses)), allowed)
        results: list[Any] = []
        Deferred.fromCoroutine(places.addresses(place)).addBoth(results.append)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        found: list[str] = results[0]
        return found

    def test_host_with_one_address_that_is_not_public_is_refused(self) -> None:
        """Unless the operator allows host and port."""
        place = Place("push.example", 443)
        self.assertEqual(self.found(["8.8.8.8", "2606:4700::1111"], place), ["8.8.8.8", "2606:4700::1111"])
        for addresses in (["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], []):
            with self.subTest(addresses=addresses):
                self.assertRaises(ForbiddenPlaceError, self.found, addresses, place)
        self.assertRaises(ForbiddenPlaceError, self.found, ["127.0.0.1"], place, "push.example:8443")
        self.assertEqual(self.found(["127.0.0.1"], place, "Push.example:443"), ["127.0.0.1"])
        self.assertEqual(len(self.found(["8.8.8.8"] * 9, place)), 3)


class AgentTests(TestCase):
    """Requests over real TLS."""

    def setUp(self) -> None:
        """A push service on the loopback."""
        self.service = PushService()
        self.service.listen(REACTOR)
        self.addCleanup(self.service.port.stopListening)
        self.asked: list[str] = []

    def client(self, *answers: Sequence[str], allowed: bool = True) -> HTTPClient:
        """Returns a client to whom each look-up of a name gives the next answer."""
        left = list(answers)

        def resolve(host: str, _port: int, _lane: str) -> Deferred[list[str]]:
            self.asked.append(host)
            return succeed(list(left.pop(0)))

        places = Places(resolve, [self.service.origin.removeprefix("https://")] if allowed else [])
        return HTTPClient(make_agent(REACTOR, places, self.service.trust))

    async def post(self, client: HTTPClient, url: str | None = None) -> int:
        """Posts something; returns the status."""
        response = await client.post(url or f"{self.service.origin}/x", data=b"x", allow_redirects=False)
        await response.content()
        return int(response.code)

    async def test_connection_goes_to_an_address_that_was_checked(self) -> None:
        """A name is looked up once for each request, and the next address is tried where one does not answer."""
        self.assertEqual(await self.post(self.client(["127.0.0.2", "127.0.0.1"])), 201)
        self.assertEqual((self.asked, len(self.service.received)), (["localhost"], 1))

    async def test_answers_that_change_gain_nothing(self) -> None:
        """What was found when it subscribed does not count: each request looks anew, once, and that answer counts."""
        answers = [["8.8.8.8"], ["127.0.0.1"], ["8.8.8.8", "127.0.0.1"]]
        places = Places(lambda *_: succeed(answers.pop(0)))
        client = HTTPClient(make_agent(REACTOR, places, self.service.trust))
        self.assertEqual(await places.addresses(place_of(f"{self.service.origin}/x")), ["8.8.8.8"])
        for _ in range(2):
            with self.assertRaises(ForbiddenPlaceError):
                await self.post(client)
        self.assertEqual((self.service.received, answers), ([], []))

    async def test_host_that_never_answers_holds_no_connection(self) -> None:
        """Who gives up ends the connection whose handshake does not end; other addresses are not tried."""
        silent = Silent()
        port: Any = REACTOR.listenTCP(0, silent, interface="0.0.0.0")
        self.addCleanup(port.stopListening)
        place = f"localhost:{port.getHost().port}"
        places = Places(lambda *_: succeed(["127.0.0.1", "127.0.0.2", "127.0.0.3"]), [place])
        client = HTTPClient(make_agent(REACTOR, places, self.service.trust))
        request = Deferred.fromCoroutine(self.post(client, f"https://{place}/x"))
        await silent.made
        request.cancel()
        with self.assertRaises(CancelledError):
            await request
        await silent.lost
        self.assertEqual(silent.connections, 1)

    async def test_redirects_are_not_followed(self) -> None:
        """To wherever."""
        self.service.status, self.service.location = 307, "https://localhost:1/"
        self.assertEqual(await self.post(self.client(["127.0.0.1"])), 307)
        self.assertEqual(len(self.asked), 1)

    async def test_certificate_must_be_the_hosts(self) -> None:
        """Of an authority that is believed."""
        places = Places(lambda *_: succeed(["127.0.0.1"]), [self.service.origin.removeprefix("https://")])
        with self.assertRaises(SSL.Error):
            await self.post(HTTPClient(make_agent(REACTOR, places)))
        other = self.service.origin.replace("localhost", "other.example")
        places = Places(lambda *_: succeed(["127.0.0.1"]), [other.removeprefix("https://")])
        with self.assertRaises(VerificationError):
            await self.post(HTTPClient(make_agent(REACTOR, places, self.service.trust)), f"{other}/x")
        self.assertEqual(self.service.received, [])

    async def test_answer_that_is_too_long_is_cut(self) -> None:
        """A push service has nothing to say."""
        self.service.answer = b"x" * (2 * MAX_ANSWER_BYTES)
        with self.assertRaises(ResponseFailed):
            await self.post(self.client(["127.0.0.1"]))

    async def test_answer_that_does_not_end_holds_no_connection(self) -> None:
        """For long, although nobody reads it any more."""
        self.patch(destinations, "CONNECTION_S", 0.5)
        lost: list[Deferred[None]] = []

        def drip(request: Any) -> Any:
            lost.append(request.notifyFinish())
            request.write(b"x")
            return NOT_DONE_YET

        self.patch(self.service, "render_POST", drip)
        request = Deferred.fromCoroutine(self.post(self.client(["127.0.0.1"])))
        while not lost:
            await deferLater(REACTOR, 0.01)
        request.cancel()
        with self.assertRaises((CancelledError, ResponseFailed)):
            await request
        with self.assertRaises(ConnectionLost):
            await lost[0]

    def test_connection_that_lasted_too_long_is_kept_by_nothing(self) -> None:
        """Nor by a reference cycle, which the garbage collector might not look at any more."""
        gc.disable()
        self.addCleanup(gc.enable)
        clock, transport = Clock(), StringTransport()
        factory = destinations._Factory(clock, Factory.forProtocol(Protocol), "localhost")
        protocol = factory.buildProtocol(None)
        there = weakref.ref(protocol)
        protocol.makeConnection(transport)
        clock.advance(CONNECTION_S)
        self.assertTrue(transport.disconnected)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(protocol.ready, ConnectionLost)
        del protocol
        self.assertIsNone(there())

    def test_plain_http_is_never_spoken(self) -> None:
        """Whoever asks for it."""
        agent: Any = make_agent(REACTOR, Places(lambda *_: succeed([])))
        self.assertRaises(
            ForbiddenPlaceError, agent._endpointFactory.endpointForURI, URI.fromBytes(b"http://push.example/")
        )


class Silent(Factory):
    """Takes connections, and says nothing."""

    def __init__(self) -> None:
        self.connections = 0
        self.made: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def buildProtocol(self, addr: Any) -> Protocol:
        """Counts."""
        self.connections += 1
        return Listener(self)


class Listener(Protocol):
    """One of them."""

    def __init__(self, silent: Silent) -> None:
        self.silent = silent

    def dataReceived(self, data: bytes) -> None:
        """The handshake has begun."""
        if not self.silent.made.called:
            self.silent.made.callback(None)

    def connectionLost(self, reason: Failure = CONNECTION_DONE) -> None:
        """The other side has given up."""
        if not self.silent.lost.called:
            self.silent.lost.callback(None)


class LookUpTests(TestCase):
    """Names that are looked up in threads."""

    def setUp(self) -> None:
        """A name server that answers when it is told."""
        self.patch(destinations, "LOOK_UPS_AT_ONCE", 3)
        self.patch(destinations, "MAX_LOOK_UPS_WAITING_IN_LANE", 2)
        self.asked: list[str] = []
        self.may_answer = Event()
        self.addCleanup(self.may_answer.set)
        self.look_ups = LookUps(REACTOR, self.answer)

    def answer(self, host: str, _port: int) -> list[str]:
        """Answers like a name server, for some names not at once."""
        self.asked.append(host)
        if host.startswith("slow"):
            self.may_answer.wait(60)
        if host.startswith("none"):
            raise OSError("no such name")
        return [host]

    async def test_slow_name_servers_hold_nobody_else_up(self) -> None:
        """Of one client a few names are looked up at once, and a few wait."""
        slow = [self.look_ups.resolve(f"slow{number}", 443, "eve") for number in range(4)]
        with self.assertRaises(Busy):
            await self.look_ups.resolve("slow4", 443, "eve")
        self.assertEqual(await self.look_ups.resolve("quick", 443, "ann"), ["quick"])
        with self.assertRaises(OSError):
            await self.look_ups.resolve("none", 443, "ann")
        self.assertEqual(set(self.asked), {"slow0", "slow1", "quick", "none"})
        self.may_answer.set()
        self.assertEqual([await each for each in slow], [["slow0"], ["slow1"], ["slow2"], ["slow3"]])

    async def test_addresses_are_known_for_a_while(self) -> None:
        """So what is known is there while slow name servers take all look-ups; hosts that were asked for last stay."""
        self.patch(destinations, "MAX_KNOWN", 2)
        for host in ("a", "b", "a", "c"):
            await self.look_ups.resolve(host, 443, "ann")
        slow = [self.look_ups.resolve(f"slow{number}", 443, f"eve{number}") for number in range(3)]
        self.assertEqual([await self.look_ups.resolve(host, 443, "bob") for host in "ac"], [["a"], ["c"]])
        self.assertEqual(self.asked[:3], ["a", "b", "c"])
        waiting = self.look_ups.resolve("b", 443, "bob")
        self.assertFalse(waiting.called)
        self.may_answer.set()
        await waiting
        for each in slow:
            await each
        self.patch(destinations, "KNOWN_S", 0)
        for _ in range(2):
            await self.look_ups.resolve("d", 443, "ann")
        self.assertEqual((self.asked.count("a"), self.asked.count("b"), self.asked.count("d")), (1, 2, 2))

    async def test_machine_is_asked(self) -> None:
        """By its own resolver; what is no name is not found."""
        look_ups = LookUps(REACTOR)
        self.assertIn("127.0.0.1", await look_ups.resolve("127.0.0.1", 443, ""))
        with self.assertRaises(OSError):
            await look_ups.resolve("a" * 70 + ".example", 443, "")
