"""What mDNS tells of a relay, told and heard on the loopback."""

from __future__ import annotations

import threading

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zeroconf import ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from clasp_relay import __version__
from clasp_relay.doors import announce
from clasp_relay.doors.announce import SERVICE_TYPE, Announcement, own_addresses, service_info
from tests.logs.events import collect


class ServiceInfoTests(SynchronousTestCase):
    def test_name_is_a_label(self) -> None:
        """Without dots, cut between characters to 63 bytes; an empty one is the default."""
        for name, label in (
            ("Our relay", "Our relay"),
            ("relay.example.com", "relay example com"),
            ("ä" * 40, "ä" * 31),
            ("...", "CLASP Relay"),
        ):
            with self.subTest(name):
                info = service_info(name, 7330, ["127.0.0.1"], has_accounts=True)
                self.assertEqual(info.name, f"{label}.{SERVICE_TYPE}")

    def test_record_says_what_clients_need(self) -> None:
        """Version, path, and whether there are accounts."""
        info = service_info("x", 7330, ["192.0.2.1"], has_accounts=False)
        self.assertEqual((info.port, info.parsed_addresses()), (7330, ["192.0.2.1"]))
        self.assertEqual(info.decoded_properties, {"version": __version__, "path": "/", "auth": "0"})

    def test_addresses_are_those_that_are_listened_on(self) -> None:
        """One, or all of the machine."""
        self.assertEqual(own_addresses("127.0.0.1"), ["127.0.0.1"])
        self.assertNotEqual(own_addresses("0.0.0.0"), [])
        self.assertNotIn("0.0.0.0", own_addresses("0.0.0.0"))


class AnnouncementTests(TestCase):
    timeout = 60

    async def test_neighbour_finds_the_relay_while_it_runs(self) -> None:
        """And no longer after its stop."""
        came, went = threading.Event(), threading.Event()
        listener = Zeroconf(interfaces=["127.0.0.1"])
        self.addCleanup(listener.close)

        def changed(*, state_change: ServiceStateChange, **_others: object) -> None:
            if state_change is ServiceStateChange.Added:
                came.set()
            elif state_change is ServiceStateChange.Removed:
                went.set()

        ServiceBrowser(listener, SERVICE_TYPE, handlers=[changed])
        announcement = Announcement(reactor, "A test", "127.0.0.1", has_accounts=True)
        announcement.open(None)
        for _ in range(2):
            announcement.started(7331)
        done: Deferred[None] | None = announcement._done
        assert done is not None
        await done
        self.assertTrue(came.wait(20))
        info = ServiceInfo(SERVICE_TYPE, f"A test.{SERVICE_TYPE}")
        self.assertTrue(info.load_from_cache(listener))
        self.assertEqual((info.port, info.decoded_properties["auth"]), (7331, "1"))
        # Neighbours take no notice of a goodbye that follows its announcement within a second.
        await deferLater(reactor, 1.5)
        await announcement.close()
        self.assertTrue(went.wait(20))
        await announcement.close()

    async def test_failure_is_logged(self) -> None:
        """And nothing else fails."""
        events = collect(self)
        self.patch(announce, "own_addresses", lambda _host: ["192.0.2.1"])
        announcement = Announcement(reactor, "A test", "0.0.0.0", has_accounts=True)
        announcement.started(None)
        announcement.started(7331)
        done = announcement._done
        assert done is not None
        await done
        self.assertIn("relay.not_announced", [event.get("event") for event in events])
        await announcement.close()
