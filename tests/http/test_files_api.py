"""Files over HTTP, without sockets."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.file_quotas import MIB
from clasp_relay.access.refusals import Busy
from clasp_relay.access.threads import Workers
from clasp_relay.http.connections import BODY_TIMEOUT_S
from clasp_relay.http.cors import Origins
from clasp_relay.http.files_api import LEAST_BYTES_A_SECOND, SENT_BYTES, ByteRange, make_files_resource, range_of
from clasp_relay.http.site import MAX_DRAINED_BYTES
from clasp_relay.storage.files import DiskFull, FileWriter
from tests.access.stack import SteppedWorkers
from tests.access.test_files import World
from tests.http.memory_site import Answer, MemorySite, parse_answer


class FilesSite:
    """A site with files at ``/files``.

    Args:
        folder: where they are.
        disk: does what is done on the disk.
        sql: does what is done to the records.
    """

    def __init__(self, folder: Path, disk: Workers | None = None, sql: Workers | None = None) -> None:
        self.world = World(folder, disk, sql)
        api = make_files_resource(self.world.files, origins=Origins(None), addresses=ClientAddresses(()))
        self.api = api
        self.memory = MemorySite(Resource())
        self.memory.site.resource.putChild(b"files", api)
        self.memory.site.open_body = api.open_body

    def ask(
        self,
        method: str,
        path: str = "",
        body: bytes = b"",
        bearer: str = "alice",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Asks for something at /files."""
        token = self.world.alice if bearer == "alice" else bearer
        return self.memory.request(method, f"/files{path}", body, bearer=token, headers=headers)

    def send(self, body: bytes = b"hello") -> str:
        """Sends a file; returns the path of it below /files."""
        return f"/{self.ask('POST', '', body).json['id']}"


class LateTokenTests(SynchronousTestCase):
    """Uploads whose token another relay may have issued just now."""

    def setUp(self) -> None:
        """Nothing is known of tokens yet."""
        self.site = FilesSite(Path(self.mktemp()))
        self.addCleanup(self.site.world.store.close)
        self.waits: Deferred[None] = Deferred()
        self.site.api.until_known = lambda _: self.waits

    def begin(self, body: bytes, length: int, bearer: str) -> tuple[Any, StringTransport]:
        """Sends the beginning of an upload."""
        protocol, transport = self.site.memory.connect()
        head = f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nContent-Length: {length}\r\n\r\n"
        protocol.dataReceived(head.encode() + body)
        self.site.memory.clock.advance(0)
        return protocol, transport

    def test_body_waits_until_the_token_is_known(self) -> None:
        """Whether all of it has come by then, or not; meanwhile nothing more is read."""
        for rest in (b"", b"world"):
            with self.subTest(rest=rest):
                self.waits = Deferred()
                protocol, transport = self.begin(b"hello", 5 + len(rest), self.site.world.alice)
                self.assertEqual(transport.value(), b"")
                self.assertEqual(transport.producerState, "paused" if rest else "producing")
                self.waits.callback(None)
                self.site.memory.clock.advance(0)
                if rest:
                    protocol.dataReceived(rest)
                    self.site.memory.clock.advance(0)
                answer = parse_answer(transport.value())
                self.assertEqual((answer.status, answer.json["size"]), (201, 5 + len(rest)))
                path = f"/{answer.json['id']}"
                self.assertEqual(self.site.ask("GET", path).body, b"hello" + rest)

    def test_token_that_nobody_has_issued_is_refused(self) -> None:
        """And so is one of which nobody can tell."""
        for refuse, status in ((lambda: self.waits.callback(None), 401), (self.cut_off, 503)):
            self.waits = Deferred()
            _, transport = self.begin(b"hello", 5, "cpsk_nobody")
            refuse()
            self.site.memory.clock.advance(0)
            self.assertEqual(parse_answer(transport.value()).status, status)
        self.assertEqual(self.site.world.names, [])

    def cut_off(self) -> None:
        """The relay that decides does not answer."""
        self.waits.errback(Busy("Try again.", 5))

    def test_client_that_is_gone_leaves_nothing(self) -> None:
        """Whether its token is known later or not."""
        protocol, _ = self.begin(b"hel", 5, self.site.world.alice)
        protocol.connectionLost(Failure(connectionDone))
        self.waits.callback(None)
        self.assertEqual((self.site.world.names, self.site.world.files.quotas.arriving), ([], 0))

    def test_request_is_kept_by_nothing_once_it_is_answered(self) -> None:
        """Or its client is gone; the garbage collector might not look at a reference cycle any more."""
        gc.disable()
        self.addCleanup(gc.enable)
        alice = self.site.world.alice
        for bearer, is_gone, tell in (
            (alice, False, lambda: self.waits.callback(None)),
            (alice, True, lambda: self.waits.callback(None)),
            ("cpsk_nobody", False, lambda: self.waits.callback(None)),
            ("cpsk_nobody", False, self.cut_off),
        ):
            with self.subTest(bearer=bearer, is_gone=is_gone):
                self.waits = Deferred()
                protocol, _ = self.begin(b"hello", 5, bearer)
                (there,) = map(weakref.ref, protocol.requests)
                if is_gone:
                    protocol.connectionLost(Failure(connectionDone))
                tell()
                self.site.memory.clock.advance(0)
                self.assertIsNone(there())


class FilesApiTests(SynchronousTestCase):
    """Everything is done at once."""

    def setUp(self) -> None:
        """Somebody is signed in."""
        self.site = FilesSite(Path(self.mktemp()))
        self.addCleanup(self.site.world.store.close)

    def test_file_goes_up_and_comes_down(self) -> None:
        """Its name and type stay with who sent it, and a browser only downloads it."""
        headers = {"Content-Type": "text/html", "Content-Disposition": 'attachment; filename="evil.html"'}
        answer = self.site.ask("POST", "?name=evil.html", b"<script>alert(1)</script>", headers=headers)
        self.assertEqual((answer.status, answer.json["size"]), (201, 25))
        self.assertEqual(answer.headers["location"], f"/files/{answer.json['id']}")
        got = self.site.ask("GET", f"/{answer.json['id']}")
        self.assertEqual((got.status, got.body), (200, b"<script>alert(1)</script>"))
        for name, value in (
            ("content-type", "application/octet-stream"),
            ("content-disposition", "attachment"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "sandbox; default-src 'none'"),
            ("etag", f'"{answer.json["id"]}"'),
            ("content-length", "25"),
            ("accept-ranges", "bytes"),
            ("cache-control", "private, no-cache"),
        ):
            self.assertEqual(got.headers[name], value)

    def test_head_tells_the_length(self) -> None:
        """And sends nothing."""
        path = self.site.send()
        answer = self.site.ask("HEAD", path)
        self.assertEqual((answer.status, answer.headers["content-length"], answer.body), (200, "5", b""))

    def test_part_of_a_file(self) -> None:
        """One range; anything else gets the whole."""
        path = self.site.send(b"0123456789")
        etag = f'"{path[1:]}"'
        for header, more, status, body, told in (
            ("bytes=0-3", {}, 206, b"0123", "bytes 0-3/10"),
            ("bytes=8-", {}, 206, b"89", "bytes 8-9/10"),
            ("bytes=-3", {}, 206, b"789", "bytes 7-9/10"),
            ("bytes=2-99", {}, 206, b"23456789", "bytes 2-9/10"),
            ("bytes=0-3", {"If-Range": etag}, 206, b"0123", "bytes 0-3/10"),
            ("bytes=0-3", {"If-Range": '"old"'}, 200, b"0123456789", None),
            ("bytes=0-1,3-4", {}, 200, b"0123456789", None),
            ("lines=0-1", {}, 200, b"0123456789", None),
        ):
            with self.subTest(header=header, more=more):
                answer = self.site.ask("GET", path, headers={"Range": header, **more})
                self.assertEqual((answer.status, answer.body), (status, body))
                self.assertEqual(answer.headers.get("content-range"), told)
        answer = self.site.ask("GET", path, headers={"Range": "bytes=10-"})
        self.assertEqual((answer.status, answer.headers["content-range"]), (416, "bytes */10"))
        self.assertEqual(set(answer.json), {"error"})

    def test_file_that_the_client_has_is_not_sent_again(self) -> None:
        """It never changes."""
        path = self.site.send()
        for tags, status in ((f'"{path[1:]}"', 304), (f'"x", W/"{path[1:]}"', 304), ("*", 304), ('"x"', 200)):
            with self.subTest(tags=tags):
                self.assertEqual(self.site.ask("GET", path, headers={"If-None-Match": tags}).status, status)

    def test_file_is_deleted_once(self) -> None:
        """By its owner."""
        path = self.site.send()
        self.assertEqual(self.site.ask("DELETE", path, bearer=self.site.world.guest()).status, 403)
        self.assertEqual([self.site.ask("DELETE", path).status for _ in range(2)], [200, 404])
        self.assertEqual(self.site.ask("GET", path).status, 404)

    def test_what_is_wrong_is_answered_in_a_sentence(self) -> None:
        """Each with its status, after the whole body, so that the client reads it; nothing is left."""
        guest = self.site.world.guest()
        self.site.send(b"x" * 2 * MIB)
        for method, path, body, bearer, status in (
            ("POST", "", b"x", "nonsense", 401),
            ("POST", "", b"", "alice", 400),
            ("POST", "", b"x" * (2 * MIB + 1), "alice", 413),
            ("POST", "", b"x" * 2 * MIB, "alice", 429),
            ("GET", "/" + "0" * 32, b"", guest, 404),
            ("GET", "/..%2ffiles.db", b"", guest, 404),
            ("GET", "/%ff%00", b"", guest, 404),
            ("GET", "/a/b", b"", guest, 404),
            ("GET", "/", b"", guest, 404),
            ("GET", "/" + "0" * 32, b"", "nonsense", 401),
            ("DELETE", "/" + "0" * 32, b"", "nonsense", 401),
            ("PUT", "/" + "0" * 32, b"x", "alice", 405),
            ("GET", "", b"", "alice", 405),
        ):
            with self.subTest(method=method, path=path, size=len(body), bearer=bearer):
                answer = self.site.ask(method, path, body, bearer)
                self.assertEqual((answer.status, set(answer.json)), (status, {"error"}))
                self.assertEqual("retry-after" in answer.headers, status == 429)
                self.assertNotIn("etag", answer.headers)
        self.assertEqual((len(self.site.world.names), self.site.world.files.quotas.arriving), (1, 0))
        options = self.site.ask("OPTIONS", "/x")
        self.assertEqual((options.status, options.headers["allow"]), (204, "DELETE, GET, HEAD, OPTIONS"))

    def test_length_has_to_be_said(self) -> None:
        """A body in chunks could take more room than there is."""
        head = f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.site.world.alice}\r\n"
        answer = self.site.memory.send(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
        self.assertEqual((answer.status, set(answer.json)), (411, {"error"}))

    def test_upload_elsewhere_is_not_found(self) -> None:
        """Other spellings of the path are refused in a sentence: nothing has taken their bodies."""
        for path in ("/%66iles", "/files%3Fx", "/%66iles?x=1"):
            with self.subTest(path=path):
                answer = self.site.memory.request("POST", path, b"hello", bearer=self.site.world.alice)
                self.assertEqual(answer.status, 404)
        self.assertEqual((self.site.world.names, self.site.world.files.quotas.bytes), ([], 0))

    def test_full_disk_is_507(self) -> None:
        """With a sentence; a fault of ours is no secret told."""
        for error, status in ((DiskFull("x"), 507), (OSError(5, "secret"), 500)):
            with self.subTest(status=status):

                def fail(*_: object, what: Exception = error) -> None:
                    raise what

                patch = self.patch(FileWriter, "sync", fail)
                answer = self.site.ask("POST", "", b"x")
                patch.restore()
                self.assertEqual((answer.status, set(answer.json)), (status, {"error"}))
                self.assertNotIn("secret", answer.json["error"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(self.site.world.names, [])

    def test_body_that_nobody_wants_ends_the_connection(self) -> None:
        """Without a token after a mebibyte, otherwise a mebibyte after the longest file."""
        for bearer, size in (
            ("nonsense", MAX_DRAINED_BYTES),
            (self.site.world.alice, 2 * MIB + MAX_DRAINED_BYTES),
        ):
            with self.subTest(bearer=bearer):
                protocol, transport = self.site.memory.connect()
                head = f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n"
                protocol.dataReceived(f"{head}Content-Length: 999999999999\r\n\r\n".encode())
                for _ in range(size // 65_536):
                    protocol.dataReceived(b"x" * 65_536)
                    self.site.memory.clock.advance(0)
                self.assertFalse(transport.disconnecting)
                protocol.dataReceived(b"x")
                self.site.memory.clock.advance(0)
                self.assertTrue(transport.disconnecting)
                self.assertEqual(parse_answer(transport.value()).status, 413)


class SlowTests(SynchronousTestCase):
    """The disk does what it is told to, one step at a time."""

    def setUp(self) -> None:
        """Somebody is signed in."""
        self.disk = SteppedWorkers()
        self.site = FilesSite(Path(self.mktemp()), self.disk)
        self.addCleanup(self.site.world.store.close)

    def begin(self, size: int, data: bytes = b"") -> tuple[Any, StringTransport]:
        """Begins an upload."""
        protocol, transport = self.site.memory.connect()
        head = f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.site.world.alice}\r\n"
        protocol.dataReceived(f"{head}Content-Length: {size}\r\n\r\n".encode() + data)
        self.site.memory.clock.advance(0)
        return protocol, transport

    def feed(self, protocol: Any, transport: StringTransport, count: int) -> int:
        """Sends pieces as long as they are read; returns how many were."""
        for number in range(count):
            if transport.producerState != "producing":
                return number
            protocol.dataReceived(b"x" * 65_536)
            self.site.memory.clock.advance(0)
        return count

    def test_upload_waits_for_the_disk(self) -> None:
        """Nothing more is read meanwhile; when there is room it goes on, and then it is answered."""
        protocol, transport = self.begin(MIB)
        sent = self.feed(protocol, transport, 16)
        self.assertLess(sent, 10)
        self.assertEqual(transport.producerState, "paused")
        while sent < 16:
            self.disk.finish()
            self.site.memory.clock.advance(0)
            more = self.feed(protocol, transport, 16 - sent)
            self.assertGreater(more, 0)
            sent += more
        self.assertEqual(transport.value(), b"")
        self.disk.finish()
        answer = parse_answer(transport.value())
        self.assertEqual((answer.status, answer.json["size"]), (201, MIB))
        self.assertEqual(transport.producerState, "producing")

    def test_upload_may_take_its_time(self) -> None:
        """Each mebibyte of it as long as it takes at the slowest rate; then it is late, and nothing stays."""
        protocol, transport = self.begin(2 * MIB)
        turns = int(BODY_TIMEOUT_S + MIB / LEAST_BYTES_A_SECOND) // 31
        for _ in range(MIB // 65_536):
            self.assertEqual(self.feed(protocol, transport, 1), 1)
            self.disk.finish()
            self.site.memory.clock.advance(7)
        for _ in range(turns):
            self.assertFalse(transport.disconnecting)
            protocol.dataReceived(b"x")
            self.site.memory.clock.advance(31)
        self.assertTrue(transport.disconnecting)
        self.assertIn(b" 408 ", transport.value())
        protocol.connectionLost(connectionDone)
        self.disk.finish()
        self.assertEqual((self.site.world.names, self.site.world.files.counts.cut), ([], 1))

    def test_client_that_goes_leaves_nothing(self) -> None:
        """While the body comes, and when it waits for the answer."""
        for data in (b"x" * 200_000, b"x" * MIB):
            with self.subTest(size=len(data)):
                protocol, _ = self.begin(MIB)
                for start in range(0, len(data), 65_536):
                    protocol.dataReceived(data[start : start + 65_536])
                    self.disk.finish() if start < MIB - 65_536 else None
                    self.site.memory.clock.advance(0)
                protocol.connectionLost(connectionDone)
                self.disk.finish()
                self.assertEqual((self.site.world.names, self.site.world.files.quotas.bytes), ([], 0))

    def test_client_reads_at_its_own_pace(self) -> None:
        """Nothing is read from the disk while it does not read; one that goes lets go of the file."""
        done = self.begin(2 * MIB)
        while not done[1].value():
            self.feed(*done, 1)
            self.disk.finish()
            self.site.memory.clock.advance(0)
        path = parse_answer(done[1].value()).json["id"]
        for leaves in (False, True):
            with self.subTest(leaves=leaves):
                protocol, transport = self.site.memory.connect()
                head = f"GET /files/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.site.world.alice}\r\n\r\n"
                protocol.dataReceived(head.encode())
                self.disk.step()
                self.disk.step()
                protocol.pauseProducing()
                self.disk.step()
                self.assertEqual(self.disk.steps, [])
                _, _, body = transport.value().partition(b"\r\n\r\n")
                self.assertEqual(len(body), 2 * SENT_BYTES)
                if leaves:
                    before = len(os.listdir("/proc/self/fd"))
                    protocol.connectionLost(connectionDone)
                    self.disk.finish()
                    self.assertEqual(len(os.listdir("/proc/self/fd")), before - 1)
                else:
                    protocol.resumeProducing()
                    self.disk.finish()
                    self.assertEqual(len(parse_answer(transport.value()).body), 2 * MIB)

    def test_file_that_is_cut_short_ends_the_connection(self) -> None:
        """No client takes it for whole."""
        done = self.begin(5, b"hello")
        self.disk.finish()
        path = parse_answer(done[1].value()).json["id"]
        (self.site.world.folder / path).write_bytes(b"")
        protocol, transport = self.site.memory.connect()
        protocol.dataReceived(f"GET /files/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ".encode())
        protocol.dataReceived(f"{self.site.world.alice}\r\n\r\n".encode())
        self.site.memory.clock.advance(0)
        self.disk.finish()
        self.assertTrue(transport.disconnected or transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


class EarlyTests(SynchronousTestCase):
    """The records are looked up when the test says so."""

    def setUp(self) -> None:
        """Somebody has sent a file."""
        self.sql = SteppedWorkers()
        self.site = FilesSite(Path(self.mktemp()), None, self.sql)
        self.addCleanup(self.site.world.store.close)
        upload = self.site.world.files.begin(self.site.world.alice, "192.0.2.1", 5)
        upload.write(b"hello")
        done = upload.finish()
        self.sql.finish()
        self.file_id = self.successResultOf(done).id

    def test_reader_that_goes_before_the_file_is_found_leaves_nothing_open(self) -> None:
        """However many of them there are: an open file that nobody closes would count against all."""
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            protocol, _transport = self.site.memory.connect()
            head = f"GET /files/{self.file_id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
            protocol.dataReceived(f"{head}{self.site.world.alice}\r\n\r\n".encode())
            self.site.memory.clock.advance(0)
            self.assertEqual(len(self.sql.steps), 1)
            protocol.connectionLost(connectionDone)
            self.sql.finish()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(self.site.world.files.counts.read, 0)


class RangeTests(SynchronousTestCase):
    def test_range_is_one_part_or_the_whole(self) -> None:
        """RFC 9110 §14: what is not understood is ignored."""
        for header, expected in (
            (None, None),
            (b"bytes=0-0", ByteRange(0, 1)),
            (b" bytes=1-2 ", ByteRange(1, 3)),
            (b"bytes=-", None),
            (b"bytes=3-1", None),
            (b"bytes=-0", ByteRange(10, 10)),
            (b"bytes=-99", ByteRange(0, 10)),
            (b"bytes=9-", ByteRange(9, 10)),
            (b"bytes=10-10", ByteRange(10, 10)),
            (b"bytes=1-2,4-5", None),
            (b"bytes=" + b"9" * 19 + b"-", None),
        ):
            with self.subTest(header=header):
                self.assertEqual(range_of(header, 10), expected)
