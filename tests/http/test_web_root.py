"""The files of a web app."""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import getChildForRequest
from twisted.web.server import NOT_DONE_YET
from twisted.web.test.requesthelper import DummyRequest

from clasp_relay.errors import StartError
from clasp_relay.http import web_root
from clasp_relay.http.web_root import WebRoot

PAGE = b"<!doctype html><title>app</title>"
SCRIPT = b"console.log(1)\n" * 50


class WebRootTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Builds an app."""
        self.folder = Path(self.mktemp())
        (self.folder / "assets").mkdir(parents=True)
        (self.folder / "index.html").write_bytes(PAGE)
        script = self.folder / "assets" / "index-B1x_9aQz.js"
        script.write_bytes(SCRIPT)
        script.with_name(script.name + ".gz").write_bytes(gzip.compress(SCRIPT))
        (self.folder / "app.webmanifest").write_bytes(b"{}")
        (self.folder.parent / "secret.txt").write_bytes(b"secret")

    def get(
        self, path: str, accept_encoding: str = "", ranges: Sequence[str] = (), **more: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Asks for a path, and returns status, headers and body."""
        request = DummyRequest([unquote_to_bytes(name) for name in path.partition("?")[0].split("/")[1:]])
        request.requestHeaders.setRawHeaders("Accept-Encoding", [accept_encoding])
        if ranges:
            request.requestHeaders.setRawHeaders("Range", ranges)
        for name, value in more.items():
            request.requestHeaders.setRawHeaders(name.replace("_", "-"), [value])
        body = getChildForRequest(WebRoot(self.folder), request).render(request)
        if body is not NOT_DONE_YET:
            request.write(body)
        headers = {
            name.decode().lower(): b", ".join(values).decode()
            for name, values in request.responseHeaders.getAllRawHeaders()
        }
        return request.responseCode or 200, headers, b"".join(request.written)

    def test_routes_of_the_app_get_its_page(self) -> None:
        """The root and every path without an extension."""
        for path in ("/", "/chat", "/chat/dm-1/2?join=x", "/auth"):
            with self.subTest(path):
                status, headers, body = self.get(path)
                self.assertEqual((status, body), (200, PAGE))
                self.assertEqual(headers["content-type"], "text/html; charset=utf-8")
                self.assertEqual(headers["cache-control"], "no-cache")

    def test_routes_of_the_console_get_its_page(self) -> None:
        """With the same headers; an app without a console takes them for its own."""
        routes = ("/console", "/console/", "/console/people?search=x")
        for path in routes:
            with self.subTest(path):
                self.assertEqual(self.get(path)[2], PAGE)
        (self.folder / "console.html").write_bytes(b"<!doctype html><title>console</title>")
        for path in routes:
            with self.subTest(path):
                status, headers, body = self.get(path)
                self.assertEqual((status, body), (200, b"<!doctype html><title>console</title>"))
                self.assertEqual(headers["cache-control"], "no-cache")
                self.assertEqual(headers["content-security-policy"], self.get("/")[1]["content-security-policy"])
        for path in ("/", "/consoles", "/chat/console"):
            with self.subTest(path):
                self.assertEqual(self.get(path)[2], PAGE)

    def test_files_are_served_with_their_type(self) -> None:
        """A script whose name has a hash never changes, others are asked for again."""
        status, headers, body = self.get("/assets/index-B1x_9aQz.js")
        self.assertEqual((status, body), (200, SCRIPT))
        self.assertEqual(headers["content-type"], "text/javascript; charset=utf-8")
        self.assertIn("immutable", headers["cache-control"])
        self.assertNotIn("content-encoding", headers)
        _, headers, _ = self.get("/app.webmanifest")
        self.assertEqual(headers["content-type"], "application/manifest+json")
        self.assertEqual(headers["cache-control"], "no-cache")

    def test_packed_files_go_to_who_takes_them(self) -> None:
        """The same contents, fewer bytes."""
        _, headers, body = self.get("/assets/index-B1x_9aQz.js", "gzip, br")
        self.assertEqual(headers["content-encoding"], "gzip")
        self.assertEqual(headers["content-type"], "text/javascript; charset=utf-8")
        self.assertEqual(headers["vary"], "Accept-Encoding")
        self.assertEqual(gzip.decompress(body), SCRIPT)
        self.assertLess(len(body), len(SCRIPT))

    def test_one_range_of_a_file_is_served_and_of_several_the_whole(self) -> None:
        """Many small ranges would cost more than the file (RFC 9110 §14.2: a server may ignore the header)."""
        path = "/assets/index-B1x_9aQz.js"
        for ranges in (["bytes=0-2"], ["bytes=-3"]):
            with self.subTest(ranges=ranges):
                status, headers, body = self.get(path, ranges=ranges)
                self.assertEqual((status, len(body)), (206, 3))
                self.assertIn(f"/{len(SCRIPT)}", headers["content-range"])
        for ranges in (["bytes=0-0,2-2"], ["bytes=" + "0-0," * 2000], ["bytes=0-0", "bytes=2-2"], ["x"], ["bytes=a-b"]):
            with self.subTest(ranges=ranges):
                status, _, body = self.get(path, ranges=ranges)
                self.assertEqual((status, body), (200, SCRIPT))

    def test_page_of_another_version_is_another_one(self) -> None:
        """Though its file has the same time, as all files of a package may; what a client has is not sent again."""
        page = self.folder / "index.html"
        os.utime(page, (315_532_800, 315_532_800))
        _, headers, _ = self.get("/")
        etag = headers["etag"]
        for tags, status in ((etag, 304), (f'W/{etag}, "x"', 304), ("*", 304), ('"x"', 200), (etag.strip('"'), 200)):
            with self.subTest(tags=tags):
                found, headers, body = self.get("/", If_None_Match=tags)
                self.assertEqual((found, headers["etag"], body), (status, etag, PAGE if status == 200 else b""))
        page.write_bytes(PAGE.replace(b"app", b"new"))
        os.utime(page, (315_532_800, 315_532_800))
        since = "Tue, 01 Jan 1980 00:00:00 GMT"
        for asked in ({"If_None_Match": etag}, {"If_Modified_Since": since}):
            with self.subTest(asked=asked):
                # As a relay that was started anew serves it.
                status, headers, body = self.get("/", **asked)
                self.assertEqual((status, body), (200, PAGE.replace(b"app", b"new")))
                self.assertNotEqual(headers["etag"], etag)

    def test_part_of_another_version_is_not_served(self) -> None:
        """Who has the beginning of a file goes on with the same file, or gets it whole."""
        path = "/assets/index-B1x_9aQz.js"
        _, headers, _ = self.get(path)
        for tag, status in ((headers["etag"], 206), ('"x"', 200)):
            with self.subTest(tag=tag):
                self.assertEqual(self.get(path, ranges=["bytes=0-2"], If_Range=tag)[0], status)

    def test_packed_file_has_an_etag_of_its_own(self) -> None:
        """Its bytes are others."""
        path = "/assets/index-B1x_9aQz.js"
        self.assertNotEqual(self.get(path)[1]["etag"], self.get(path, "gzip")[1]["etag"])

    def test_file_that_takes_long_to_read_is_known_by_its_time(self) -> None:
        """And of many files few ETags are kept."""
        self.patch(web_root, "_HASHED_BYTES", 10)
        self.patch(web_root, "_MAX_TAGS", 1)
        root = WebRoot(self.folder)
        tags = {root._etag(str(self.folder / "index.html")) for _ in range(2)}
        tags.add(root._etag(str(self.folder / "app.webmanifest")))
        self.assertEqual((len(tags), len(root._tags)), (2, 1))

    def test_what_is_missing_is_missing(self) -> None:
        """A script or picture that is not there is no route."""
        for path in ("/assets/gone.js", "/favicon.ico"):
            with self.subTest(path):
                self.assertEqual(self.get(path)[0], 404)

    def test_nothing_outside_the_folder_is_served(self) -> None:
        """Whatever the path says."""
        for path in (
            "/../secret.txt",
            "/%2e%2e/secret.txt",
            "/..%2fsecret.txt",
            "/assets/../../secret.txt",
            "/%00.txt",
        ):
            with self.subTest(path):
                status, _, body = self.get(path)
                self.assertEqual(status, 404)
                self.assertNotIn(b"secret", body)

    def test_pages_may_load_and_reach_their_own_origin_only(self) -> None:
        """The headers say so on every answer."""
        for path in ("/", "/assets/index-B1x_9aQz.js", "/gone.js"):
            with self.subTest(path):
                _, headers, _ = self.get(path)
                self.assertIn("default-src 'self'; ", headers["content-security-policy"])
                self.assertIn("connect-src 'self'; ", headers["content-security-policy"])
                self.assertNotIn("unsafe", headers["content-security-policy"])
                self.assertEqual(headers["x-content-type-options"], "nosniff")

    def test_a_folder_without_a_page_is_refused(self) -> None:
        """One line names the option and the folder."""
        with self.assertRaises(StartError) as caught:
            WebRoot(self.folder / "assets")
        self.assertIn("--web-root", str(caught.exception))
