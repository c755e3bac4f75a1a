"""Tests of ``clasp_relay.push``."""
