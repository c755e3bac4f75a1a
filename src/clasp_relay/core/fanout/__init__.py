"""Fan-out: who gets which message, when, and how often."""
