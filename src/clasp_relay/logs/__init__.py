"""The log: how much of it, as which lines, where to, and what the relay says in it."""
