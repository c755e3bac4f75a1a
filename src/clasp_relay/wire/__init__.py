"""Decodes bytes to messages and encodes messages: pure functions, without Twisted, clock or state."""
