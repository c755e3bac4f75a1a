"""A push service over HTTPS on the loopback, and the browsers that it knows: it decrypts, and checks who sent."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, NamedTuple

import http_ece
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL, crypto
from twisted.internet.ssl import PrivateCertificate
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.certificates import HOST, Issued, issue

AUTH = b"0123456789abcdef"


class Received(NamedTuple):
    """A message as its browser reads it."""

    path: str
    payload: Any
    headers: dict[str, str]


class Browser:
    """A browser's keys for one subscription."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.public = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def subscription(self, endpoint: str) -> dict[str, object]:
        """Returns what ``PushSubscription.toJSON`` gives."""
        return {"endpoint": endpoint, "keys": {"p256dh": base64url(self.public), "auth": base64url(AUTH)}}

    def read(self, body: bytes) -> bytes:
        """Decrypts a message, with another implementation than the relay's, and takes the padding off."""
        data: bytes = http_ece.decrypt(body, private_key=self.key, auth_secret=AUTH, version="aes128gcm")
        return data


def base64url(data: bytes) -> str:
    """Encodes as in JWTs."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Decodes as in JWTs."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def check_vapid(header: str, audience: str, key: str) -> dict[str, Any]:
    """Returns the claims of an Authorization header (RFC 8292), after checking the signature, key and audience."""
    scheme, _, rest = header.partition(" ")
    fields = dict(part.strip().split("=", 1) for part in rest.split(","))
    head, claims, signature = fields["t"].split(".")
    assert (scheme, fields["k"], json.loads(from_base64url(head))["alg"]) == ("vapid", key, "ES256"), header
    raw = from_base64url(signature)
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), from_base64url(fields["k"]))
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    public.verify(der, f"{head}.{claims}".encode(), ec.ECDSA(SHA256()))
    found: dict[str, Any] = json.loads(from_base64url(claims))
    assert found["aud"] == audience, found
    assert time.time() < found["exp"] <= time.time() + 86_400, found
    return found


class PushService(Resource):
    """Takes what is posted to ``/{name}`` for the browser of that name."""

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self) -> None:
        Resource.__init__(self)
        self.browsers: dict[str, Browser] = {}
        self.received: list[Received] = []
        self.status = 201
        self.location = ""
        self.answer = b""
        self.issued: Issued = issue(HOST)
        self.port: Any = None

    def trust(self, context: SSL.Context) -> None:
        """Believes this service's certificate alone."""
        store = context.get_cert_store()
        assert store is not None, "a context without a store"
        store.add_cert(crypto.X509.from_cryptography(self.issued.certificate))

    @property
    def origin(self) -> str:
        """Where it is."""
        return f"https://{HOST}:{self.port.getHost().port}"

    def listen(self, reactor: Any) -> None:
        """Listens on a free port of the loopback."""
        options = PrivateCertificate.loadPEM(self.issued.pem + self.issued.key_pem()).options()
        site = Site(self)
        site.noisy = False
        self.port = reactor.listenSSL(0, site, options, interface="127.0.0.1")

    def browser(self, name: str) -> dict[str, object]:
        """Returns the subscription of a new browser."""
        browser = self.browsers[name] = Browser()
        return browser.subscription(f"{self.origin}/{name}")

    def render_POST(self, request: Any) -> bytes:  # noqa: N802 - Twisted's
        """Takes a message."""
        name = request.path.decode()[1:]
        browser = self.browsers.get(name)
        body = request.content.read()
        headers = {key.decode().lower(): value[0].decode() for key, value in request.requestHeaders.getAllRawHeaders()}
        payload = None if browser is None else json.loads(browser.read(body))
        self.received.append(Received(name, payload, headers))
        request.setResponseCode(self.status)
        if self.location:
            request.setHeader(b"Location", self.location.encode())
        return self.answer
