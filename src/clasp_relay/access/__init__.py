"""Accounts, passwords, tokens, scopes, limits and the application policy."""
