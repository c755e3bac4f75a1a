"""The policies that come with the relay, as JSON (``docs/policy.md``, The chat's policies)."""
