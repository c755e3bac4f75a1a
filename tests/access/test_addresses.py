"""Client addresses."""

from typing import cast

from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import addresses
from clasp_relay.access.addresses import (
    ClientAddresses,
    address_group,
    client_address,
    hasher_of_addresses,
    is_in_networks,
    parse_networks,
)

PROXIES = parse_networks("127.0.0.1, 10.0.0.0/8, fd00::/8")


class ClientAddressTests(SynchronousTestCase):
    """The peer, or whom trusted proxies speak for."""

    def test_client_address_is_the_last_that_no_trusted_proxy_vouches_beyond(self) -> None:
        """The header is read right to left, as long as the speaker is trusted."""
        cases: list[tuple[str, list[str], str, str]] = [
            ("no proxy", [], "203.0.113.7", "203.0.113.7"),
            ("a stranger's header is not believed", ["1.1.1.1"], "203.0.113.7", "203.0.113.7"),
            ("one proxy", ["203.0.113.7"], "127.0.0.1", "203.0.113.7"),
            ("what the client made up stands further left", ["1.1.1.1, 203.0.113.7"], "127.0.0.1", "203.0.113.7"),
            ("two proxies", ["203.0.113.7, 10.1.2.3"], "127.0.0.1", "203.0.113.7"),
            ("two headers are one list", ["203.0.113.7", "10.1.2.3"], "127.0.0.1", "203.0.113.7"),
            ("nothing but proxies: the farthest", ["10.9.9.9,10.1.2.3"], "127.0.0.1", "10.9.9.9"),
            ("a proxy that says nothing", [], "10.1.2.3", "10.1.2.3"),
            ("an empty header", [""], "10.1.2.3", "10.1.2.3"),
            ("no address: whom it came from", ["203.0.113.7, unknown"], "127.0.0.1", "127.0.0.1"),
            ("no address behind a proxy", ["203.0.113.7, _x, 10.1.2.3"], "127.0.0.1", "10.1.2.3"),
            ("with a port", ["203.0.113.7:4711"], "127.0.0.1", "203.0.113.7"),
            ("IPv6", ["2001:DB8::0:1"], "fd00::1", "2001:db8::1"),
            ("IPv6 in brackets, with a port", ["[2001:db8::1]:4711"], "127.0.0.1", "2001:db8::1"),
            ("IPv4 in IPv6, peer and client", ["::ffff:203.0.113.7"], "::ffff:127.0.0.1", "203.0.113.7"),
            ("an interface", [], "fe80::1%eth0", "fe80::1"),
            ("a Unix socket is no proxy", ["203.0.113.7"], "local", "local"),
        ]
        for what, forwarded, peer, expected in cases:
            with self.subTest(what):
                self.assertEqual(client_address(peer, forwarded, PROXIES), expected)

    def test_nobody_is_trusted_unless_named(self) -> None:
        """Without trusted proxies the header is not looked at, from this machine neither."""
        self.assertEqual(client_address("127.0.0.1", ["203.0.113.7"], ()), "127.0.0.1")


class ClientAddressesTests(SynchronousTestCase):
    """A proxy that is not trusted."""

    def test_untrusted_proxy_is_told_once(self) -> None:
        """One on this machine or its network: a stranger may send any header."""
        lines: list[str] = []
        observer = cast(ILogObserver, lambda event: lines.append(formatEvent(event)))
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        addresses = ClientAddresses(parse_networks("127.0.0.1"))
        for peer, forwarded in (
            ("8.8.8.8", ["203.0.113.7"]),
            ("127.0.0.1", ["203.0.113.7"]),
            ("172.18.0.2", []),
            ("local", ["203.0.113.7"]),
        ):
            addresses.of(peer, forwarded)
        self.assertEqual(lines, [])
        for _ in range(3):
            self.assertEqual(addresses.of("172.18.0.2", ["203.0.113.7"]), "172.18.0.2")
        (line,) = lines
        self.assertIn("172.18.0.2 sends X-Forwarded-For and is not trusted", line)
        self.assertIn("--trusted-proxy 172.18.0.2", line)


class NetworkTests(SynchronousTestCase):
    """Lists of networks, and what counts as one address."""

    def test_networks_are_addresses_or_cidrs(self) -> None:
        """Host bits do not matter; anything else is an error."""
        self.assertEqual([str(network) for network in parse_networks("10.1.2.3/8,::1, ")], ["10.0.0.0/8", "::1/128"])
        for text in ("proxy", "10.0.0.0/40", "10.0.0.0/8;::1"):
            with self.subTest(text=text):
                self.assertRaises(ValueError, parse_networks, text)

    def test_addresses_of_one_subscriber_are_one(self) -> None:
        """An IPv6 network of 64 bits is; IPv4 addresses are each their own."""
        cases = [
            ("203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("::ffff:203.0.113.7", "::ffff:203.0.113.7"),
            ("local", "local"),
        ]
        for address, group in cases:
            with self.subTest(address=address):
                self.assertEqual(address_group(address), group)

    def test_hash_is_of_what_counts_as_one_address_and_needs_its_key(self) -> None:
        """Without the key nobody finds the address by trying all."""
        hash_of = hasher_of_addresses(b"key")
        self.assertEqual(hash_of("2001:db8::1"), hash_of("2001:db8::2"))
        self.assertNotEqual(hash_of("192.0.2.1"), hash_of("192.0.2.2"))
        self.assertNotEqual(hash_of("192.0.2.1"), hasher_of_addresses(b"other")("192.0.2.1"))
        self.assertEqual(len(hash_of("local")), 16)

    def test_long_text_is_no_address_and_takes_no_place_in_the_cache(self) -> None:
        """What a client writes into a header may be 16 kB long."""
        addresses._parse_short.cache_clear()
        self.assertTrue(is_in_networks("127.0.0.1%" + "z" * 50, PROXIES))
        self.assertFalse(is_in_networks("127.0.0.1%" + "z" * 60, PROXIES))
        self.assertEqual(client_address("127.0.0.1", ["192.0.2.1%" + "z" * 60], PROXIES), "127.0.0.1")
        self.assertEqual(addresses._parse_short.cache_info().currsize, 2)

    def test_address_is_in_a_network_or_not(self) -> None:
        """What is no address is in none."""
        for address, expected in (
            ("127.0.0.1", True),
            ("::ffff:10.1.1.1", True),
            ("192.0.2.1", False),
            ("local", False),
        ):
            with self.subTest(address=address):
                self.assertEqual(is_in_networks(address, PROXIES), expected)
