"""Bytes and messages: pure functions, no Twisted, no clock, no state."""
