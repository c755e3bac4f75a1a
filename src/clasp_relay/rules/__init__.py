"""Rules: what the relay does by itself when something is set, published or due."""
