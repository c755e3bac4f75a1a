"""OSC 1.0 and the type tags of 1.1: bytes to messages and back, and its arguments as CLASP values."""
