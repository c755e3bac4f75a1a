"""Makes up requests from the HTTP API's description and checks every answer against it.

Usage: ``python fuzz_auth_api.py URL TOKEN...``. A program of its own, since it blocks; it does the same
every time.
"""

import sys
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

TAKES_ANY_JSON = ("/api/params/", "/api/events/", "/files")
"""Paths whose body is a value or a file: nothing is wrong there."""

LEFT_OUT = ("/api/stream", "/api/admin/")
"""The path whose answers go on for ever, and those of the console, which the server of the test does not have."""

EXAMPLES = 15
"""Requests per operation, kind of data and bearer."""


def check(operation: Any, mode: GenerationMode, headers: dict[str, str]) -> None:
    """Sends requests to one operation."""
    # What a name may be is more than a schema can say.
    excluded: Any = CHECKS.get_by_names(["positive_data_acceptance"])

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        case.call_and_validate(headers=headers, excluded_checks=excluded)

    run()


def main(url: str, tokens: list[str]) -> None:
    """Checks all operations, without a token and with each."""
    load_all_checks()
    schema: Any = schemathesis.openapi.from_url(f"{url}/auth/openapi.json")
    schema.config.update(base_url=url)
    # A body that is too large is refused before anybody looks at what it says.
    schema.config.checks.negative_data_rejection.expected_statuses.append("413")
    operations: list[Any] = [result.ok() for result in schema.get_all_operations()]
    operations = [operation for operation in operations if not operation.path.startswith(LEFT_OUT)]
    for operation in operations:
        for token in (None, *tokens):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                has_wrong_bodies = operation.body and not operation.path.startswith(TAKES_ANY_JSON)
                if mode is GenerationMode.POSITIVE or has_wrong_bodies:
                    check(operation, mode, headers)
    print(f"{len(operations)} operations")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
