"""Tokens for as many users as a measurement needs, from the relay's auth API."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

WORKERS = 4
DASHBOARD = "dashboard"


class Tokens:
    """Registers guests, and writes files of their tokens for the generator.

    Args:
        auth_port: the port of the auth API.
        folder: the relay's folder, with the admin token in ``admin.token``.
    """

    def __init__(self, auth_port: int, folder: Path) -> None:
        self._auth_port = auth_port
        self._folder = folder
        self._guests: list[tuple[str, str]] = []

    def guests(self, count: int) -> list[tuple[str, str]]:
        """Returns token and user id of ``count`` guests; registers those that are missing."""
        missing = count - len(self._guests)
        if missing > 0:
            shares = [missing // WORKERS + (worker < missing % WORKERS) for worker in range(WORKERS)]
            with ThreadPoolExecutor(WORKERS) as pool:
                self._guests += chain.from_iterable(pool.map(self._make, shares))
        return self._guests[:count]

    def file(self, count: int, *, first_is_admin: bool) -> Path:
        """Writes a file with one token and user id a line.

        Args:
            count: the number of tokens.
            first_is_admin: whether the first one is the admin token.
        """
        lines = [" ".join(pair) for pair in self.guests(count)]
        if first_is_admin:
            lines.insert(0, f"{self.admin} {DASHBOARD}")
        path = self._folder / "tokens"
        path.write_text("\n".join(lines) + "\n", "ascii")
        return path

    @property
    def admin(self) -> str:
        """The admin token that the relay created."""
        return (self._folder / "admin.token").read_text("ascii").strip()

    def _make(self, count: int) -> list[tuple[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._auth_port, timeout=30)
        made: list[tuple[str, str]] = []
        for _ in range(count):
            connection.request("POST", "/auth/guest", b"{}", {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = json.loads(answer.read())
            if answer.status != 200:
                raise AssertionError(f"no token: {answer.status} {body}")
            made.append((body["token"], body["user_id"]))
        connection.close()
        return made
