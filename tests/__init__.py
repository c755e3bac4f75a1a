"""The tests, one file per module of ``src/clasp_relay``.

``HYPOTHESIS_PROFILE=long`` draws other examples at each run, and fifty times as many.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "deterministic", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long", derandomize=False, max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "deterministic"))
