"""Tests of clasp_relay.rules."""
