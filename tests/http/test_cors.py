"""Origins."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.http.cors import Origins


class OriginsTests(SynchronousTestCase):
    """Which pages are let in; the headers are tested with the API."""

    def test_listed_origins_and_the_relays_own_are_let_in(self) -> None:
        """Compared as browsers write them; everything else is kept out."""
        origins = Origins(["https://chat.example", "http://LOCALHOST:5173/", "https://secure.example:443"])
        cases = [
            ("https://chat.example", True),
            ("https://chat.example:443", True),
            ("HTTPS://CHAT.EXAMPLE", True),
            ("http://localhost:5173", True),
            ("https://secure.example", True),
            ("http://chat.example", False),
            ("https://chat.example:8443", False),
            ("https://evil.chat.example", False),
            ("https://chat.example.evil", False),
            ("http://localhost", False),
            ("null", False),
            ("", False),
            ("https://[::1", False),
            ("https://chat.example:port", False),
            ("http://relay.example:7350", True),
            ("https://relay.example:7350", False),
            ("http://relay.example", False),
        ]
        for origin, admitted in cases:
            with self.subTest(origin=origin):
                self.assertIs(origins.admit(origin, "relay.example:7350", "http"), admitted)

    def test_internationalised_origins_are_compared_as_browsers_write_them(self) -> None:
        """In IDNA's ASCII form (UTS #46, non-transitional), whichever way the list has them."""
        for listed, origin, admitted in (
            ("https://bücher.example", "https://xn--bcher-kva.example", True),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example", True),
            ("https://BÜCHER.example:8443", "https://xn--bcher-kva.example:8443", True),
            ("https://straße.example", "https://xn--strae-oqa.example", True),
            ("https://bücher.example", "https://bucher.example", False),
            ("https://\u2028.example", "https://\u2028.example", True),
        ):
            with self.subTest(listed):
                self.assertIs(Origins([listed]).admit(origin, "relay.example"), admitted)

    def test_own_origin_of_a_scheme_that_is_not_known_has_either(self) -> None:
        """A proxy may have ended TLS."""
        origins = Origins([])
        for origin, host, admitted in (
            ("https://relay.example", "relay.example", True),
            ("http://relay.example", "Relay.example:80", True),
            ("https://[2001:db8::1]:7350", "[2001:db8::1]:7350", True),
            ("https://relay.example", "other.example", False),
            ("ftp://relay.example", "relay.example", False),
        ):
            with self.subTest(origin=origin, host=host):
                self.assertIs(origins.admit(origin, host), admitted)
        self.assertFalse(origins.any)

    def test_without_a_list_everybody_is_let_in(self) -> None:
        """Whatever the origin is."""
        origins = Origins(None)
        self.assertTrue(origins.any)
        for origin in ("https://chat.example", "null", ""):
            self.assertTrue(origins.admit(origin, "relay.example"))

    def test_origin_that_cannot_be_read_is_only_itself(self) -> None:
        """«null», of a page without an origin, can be listed on purpose."""
        for origin in ("null", "file://"):
            self.assertTrue(Origins([origin]).admit(origin, "relay.example"))
            self.assertFalse(Origins(["https://chat.example"]).admit(origin, "relay.example"))
