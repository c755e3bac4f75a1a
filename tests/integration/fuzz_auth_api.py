"""Makes up requests from the HTTP API's description and checks every answer against it.

Usage: ``python fuzz_auth_api.py URL TOKEN... [--only PREFIX... --examples N]``. A program of its own, since it blocks;
it does the same every time.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

TAKES_ANY_JSON = ("/api/params/", "/api/events/", "/files")
"""Paths whose body is a value or a file: nothing is wrong there."""

ENDLESS = ("/api/stream", "/api/admin/stream")
"""Paths whose answers go on for ever."""

LAST = "/api/admin/logout"
"""Ends the token that the others are asked with."""

EXAMPLES = 15
"""Requests per operation, kind of data and bearer, where nothing else is asked for."""


def check(operation: Any, mode: GenerationMode, headers: dict[str, str], examples: int) -> None:
    """Sends requests to one operation."""
    # What a name may be is more than a schema can say.
    excluded: Any = CHECKS.get_by_names(["positive_data_acceptance"])

    @seed(1)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        case.call_and_validate(headers=headers, excluded_checks=excluded)

    run()


def main(url: str, tokens: Sequence[str], only: Sequence[str], left_out: Sequence[str], examples: int) -> None:
    """Checks operations, without a token and with each."""
    load_all_checks()
    schema: Any = schemathesis.openapi.from_url(f"{url}/auth/openapi.json")
    schema.config.update(base_url=url)
    # A body that is too large is refused before anybody looks at what it says.
    schema.config.checks.negative_data_rejection.expected_statuses.append("413")
    operations: list[Any] = [result.ok() for result in schema.get_all_operations()]
    operations = [each for each in operations if each.path.startswith(tuple(only)) and each.path not in ENDLESS]
    operations = [each for each in operations if not each.path.startswith(tuple(left_out))]
    for operation in sorted(operations, key=lambda each: each.path == LAST):
        for token in (None, *tokens):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                has_wrong_bodies = operation.body and not operation.path.startswith(TAKES_ANY_JSON)
                if mode is GenerationMode.POSITIVE or has_wrong_bodies:
                    check(operation, mode, headers, examples)
    print(f"{len(operations)} operations")


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("tokens", nargs="*")
    parser.add_argument("--only", nargs="+", default=["/"], help="what paths begin with")
    parser.add_argument("--without", nargs="+", default=[], help="what the paths of others begin with")
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    return parser.parse_args()


if __name__ == "__main__":
    asked = arguments()
    main(asked.url, asked.tokens, asked.only, asked.without, asked.examples)
