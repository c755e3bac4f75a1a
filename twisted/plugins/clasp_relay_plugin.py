"""Shows the relay to twistd, which looks for plugins in folders named ``twisted/plugins``."""

from clasp_relay.tap import relay

__all__ = ["relay"]
