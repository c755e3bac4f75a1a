"""What is sent to a push service, against the RFCs' own examples and another implementation."""

from __future__ import annotations

import json
import time

from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.push.encryption import (
    NO_CONTACT,
    PADDED_BYTES,
    Vapid,
    check_public_key,
    decode_base64url,
    encrypt,
    make_vapid_key,
)
from tests.push.push_service import AUTH, Browser, check_vapid

ORIGIN = "https://push.example"


class EncryptionTests(SynchronousTestCase):
    """RFC 8291."""

    def test_example_of_the_rfc(self) -> None:
        """Appendix A, to the byte."""
        key = ec.derive_private_key(
            int.from_bytes(decode_base64url("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw")), ec.SECP256R1()
        )
        found = encrypt(
            b"When I grow up, I want to be a watermelon",
            decode_base64url("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"),
            decode_base64url("BTBZMqHH6r4Tts7J_aSIgg"),
            padded_bytes=0,
            key=key,
            salt=decode_base64url("DGv6ra1nlYgDCS1FRnbzlw"),
        )
        expected = (
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBr"
            "u3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        )
        self.assertEqual(found, decode_base64url(expected))

    def test_another_implementation_reads_it(self) -> None:
        """All messages have one length, whatever the room is called; none has the keys of another."""
        browser = Browser()
        short, long = (encrypt(text, browser.public, AUTH) for text in (b"a", b"a" * PADDED_BYTES))
        self.assertEqual((browser.read(short), browser.read(long)), (b"a", b"a" * PADDED_BYTES))
        self.assertEqual(len(short), len(long))
        self.assertNotEqual(encrypt(b"a", browser.public, AUTH)[:100], short[:100])
        self.assertEqual(browser.read(encrypt(b"b" * 1000, browser.public, AUTH)), b"b" * 1000)

    def test_keys_that_are_none_are_refused(self) -> None:
        """No point of the curve, the wrong length, no base64url."""
        check_public_key(Browser().public)
        for point in (b"", b"\x04" + b"\x01" * 64, Browser().public[:-1], b"\x00"):
            with self.subTest(point=point):
                self.assertRaises(ValueError, check_public_key, point)
        self.assertEqual(decode_base64url("_-8="), decode_base64url("_-8"))
        for text in ("a", "_+8", "ä", "_-8 ", "_-9"):
            with self.subTest(text=text):
                self.assertRaises(ValueError, decode_base64url, text)


class VapidTests(SynchronousTestCase):
    """RFC 8292."""

    def test_proof_names_push_service_and_contact(self) -> None:
        """It is signed, and is made anew when half of its time is over."""
        now = [time.time()]
        vapid = Vapid(make_vapid_key(), "mailto:op@relay.example", lambda: now[0])
        proof = vapid.authorization(ORIGIN)
        self.assertEqual(check_vapid(proof, ORIGIN, vapid.public_key)["sub"], "mailto:op@relay.example")
        self.assertEqual(len(decode_base64url(vapid.public_key)), 65)
        now[0] += 3600
        self.assertEqual(vapid.authorization(ORIGIN), proof)
        now[0] += 6 * 3600
        self.assertNotEqual(vapid.authorization(ORIGIN), proof)
        self.assertNotEqual(vapid.authorization("https://other.example:8443"), proof)

    def test_key_is_kept_and_contact_may_be_missing(self) -> None:
        """The same key has the same public key."""
        pem = make_vapid_key()
        one, other = Vapid(pem, "", time.time), Vapid(pem, "", time.time)
        self.assertEqual(one.public_key, other.public_key)
        self.assertEqual(check_vapid(one.authorization(ORIGIN), ORIGIN, one.public_key)["sub"], NO_CONTACT)

    def test_proofs_that_are_kept_are_bounded(self) -> None:
        """A subscription could name any number of hosts."""
        vapid = Vapid(make_vapid_key(), "", time.time)
        first = vapid.authorization(ORIGIN)
        for number in range(100):
            vapid.authorization(f"https://{number}.example")
        self.assertNotEqual(vapid.authorization(ORIGIN), first)
        self.assertNotIn("private", json.dumps(vapid.public_key))
