"""The description of the API."""

from pathlib import Path

import yaml
from klein import Klein
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.http.auth_api import AuthApi
from clasp_relay.http.openapi import load_openapi

DOCS = Path(__file__).parent.parent.parent / "docs"


class OpenApiTests(SynchronousTestCase):
    """One document in two spellings."""

    def test_served_document_is_the_one_in_docs(self) -> None:
        """After a change of docs/openapi.yaml, openapi.json has to be written again from it."""
        with (DOCS / "openapi.yaml").open(encoding="utf-8") as file:
            self.assertEqual(load_openapi(), yaml.safe_load(file))

    def test_document_has_every_route_and_no_other(self) -> None:
        """With its methods."""
        app: Klein = AuthApi.app
        routes = {
            (f"/auth{rule.rule}", method.lower())
            for rule in app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD"}
        }
        paths = load_openapi()["paths"]
        self.assertEqual({(path, method) for path, methods in paths.items() for method in methods}, routes)
