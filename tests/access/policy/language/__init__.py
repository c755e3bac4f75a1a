"""The language of policies."""
