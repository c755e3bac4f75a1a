"""The HTTP side: the auth API, health and metrics."""
