"""Bodies that are too long."""

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import Request

from clasp_relay.http.site import IDLE_TIMEOUT_S, MAX_BODY_BYTES, MAX_DRAINED_BYTES
from tests.http.memory_site import MemorySite, parse_answer

HEAD = b"POST /auth HTTP/1.1\r\nHost: relay.example\r\n"


class Measure(Resource):
    """Answers with how much of the body there is."""

    isLeaf = True  # noqa: N815 - Twisted's

    def render_POST(self, request: Request) -> bytes:  # noqa: N802 - Twisted's
        """Answers with a number."""
        assert IRequest.providedBy(request)
        assert request.content is not None
        return b"%d" % len(request.content.read())


class BoundedRequestTests(SynchronousTestCase):
    """A site that measures."""

    def setUp(self) -> None:
        """Makes the site."""
        self.site = MemorySite(Measure())

    def test_body_is_kept_up_to_one_byte_more_than_is_allowed(self) -> None:
        """Whatever length was said, and in chunks too."""
        for size, kept in ((0, 0), (5, 5), (MAX_BODY_BYTES, MAX_BODY_BYTES), (200_000, MAX_BODY_BYTES + 1)):
            with self.subTest(size=size):
                plain = self.site.send(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
                self.assertEqual((plain.status, plain.body), (200, b"%d" % kept))
                chunks = b"".join(b"1f\r\n" + b"x" * 31 + b"\r\n" for _ in range(size // 31))
                rest = b"%x\r\n%s\r\n" % (size % 31, b"x" * (size % 31)) if size % 31 else b""
                chunked = self.site.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + rest + b"0\r\n\r\n")
                self.assertEqual((chunked.status, chunked.body), (200, b"%d" % kept))

    def test_form_is_not_taken_apart(self) -> None:
        """Nothing reads forms, so nothing spends memory on them."""
        head = HEAD + b"Content-Type: multipart/form-data\r\nContent-Length: 3\r\n\r\n"
        self.assertEqual(self.site.send(head + b"abc").body, b"3")

    def test_endless_body_ends_the_connection(self) -> None:
        """With a 413, once; meanwhile nothing of it is kept."""
        protocol, transport = self.site.connect()
        protocol.dataReceived(HEAD + b"Content-Length: 99999999999\r\n\r\n")
        chunk = b"x" * 65_536
        for _ in range(MAX_DRAINED_BYTES // len(chunk)):
            protocol.dataReceived(chunk)
            self.site.clock.advance(0)
        self.assertEqual(transport.value(), b"")
        self.assertFalse(transport.disconnecting)
        for last in (b"x", chunk):
            protocol.dataReceived(last)
            self.site.clock.advance(0)
            self.assertTrue(transport.disconnecting)
        answer = parse_answer(transport.value())
        self.assertEqual((answer.status, answer.json), (413, {"error": "The request is too large."}))
        self.assertEqual(answer.headers["connection"], "close")

    def test_idle_connection_is_closed(self) -> None:
        """After its last request."""
        protocol, transport = self.site.connect()
        protocol.dataReceived(HEAD + b"Content-Length: 2\r\n\r\nab")
        self.site.clock.advance(IDLE_TIMEOUT_S - 1)
        self.assertFalse(transport.disconnecting)
        self.site.clock.advance(1)
        self.assertTrue(transport.disconnecting)
