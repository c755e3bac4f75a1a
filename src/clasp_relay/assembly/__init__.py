"""Puts the relay's parts together, each part in a module; ``service`` makes the whole of them."""
