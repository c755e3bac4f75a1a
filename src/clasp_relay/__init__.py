"""clasp-relay: a server for CLASP, the binary protocol for shared live state over WebSocket."""

__version__ = "0.1.0"
