"""Ways in for other protocols, under the same sessions, rights, limits, log and metrics as CLASP over WebSocket."""
