"""The application policy: one JSON file that says who may write and see what (``docs/policy.md``).

Deciding is a matter of (policy, subject, address, value, params, time) alone: no Twisted, no clock.
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
