"""Tests of clasp_relay.assembly.auth_site: what is served at which path, with real threads and files."""

from __future__ import annotations

from pathlib import Path

from tests.assembly.running import ServerCase


class AuthSiteTests(ServerCase):
    """What a server answers."""

    async def test_web_app_is_served_beside_the_api(self) -> None:
        """Without one only the API is there."""
        app = Path(self.mktemp())
        app.mkdir()
        (app / "index.html").write_text("<title>the app</title>", "utf-8")
        running = self.start(web_root=str(app))
        for path in ("/", "/auth", "/some/page"):
            with self.subTest(path=path):
                self.assertIn(b"the app", (await running.ask("GET", path)).body)
        self.assertIn(b"ws", running.site.resource.listStaticNames())
        for path in ("/auth/nothing", "/api/entities", "/api/journal", "/metrics", "/readyz"):
            with self.subTest(path=path):
                answer = await running.ask("GET", path)
                self.assertEqual((answer.status, answer.json), (404, {"error": "There is nothing here."}))
        await running.server.stopService()
        bare = self.start()
        for path in ("/", "/api/entities", "/some/page"):
            answer = await bare.ask("GET", path)
            self.assertEqual((answer.status, answer.json), (404, {"error": "There is nothing here."}))
        self.assertEqual(bare.site.resource.listStaticNames(), [b"auth", b"api", b"hooks", b"files"])
        self.assertEqual((await bare.ask("GET", "/auth/me")).status, 401)
