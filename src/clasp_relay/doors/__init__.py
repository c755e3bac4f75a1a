"""Doors: other protocols for clients, with the sessions, rights, limits, log and metrics of CLASP over WebSocket."""
