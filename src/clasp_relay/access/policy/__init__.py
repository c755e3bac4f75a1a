"""The application policy: one JSON file that says who may write and see what (``docs/policy.md``).

Decisions depend on the policy, the subject, the address, the value, the params and the given time only: the package
uses neither Twisted nor a clock.
"""

from clasp_relay.access.policy.document import GuestIds, MessageRate
from clasp_relay.access.policy.explain import Explanation, explain_read, explain_write
from clasp_relay.access.policy.language.maps import redact
from clasp_relay.access.policy.policy import PACKAGED, Policy
from clasp_relay.access.policy.visibility_rules import VisibilityRule

__all__ = [
    "PACKAGED",
    "Explanation",
    "GuestIds",
    "MessageRate",
    "Policy",
    "VisibilityRule",
    "explain_read",
    "explain_write",
    "redact",
]
