"""Tests of clasp_relay.core.history."""
