"""Accounts, tokens and sent files in a cluster: one database, changed by the decider and followed by all."""
