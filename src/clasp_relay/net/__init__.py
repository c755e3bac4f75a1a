"""WebSocket: Autobahn protocols, outboxes, and the one write per session and event-loop turn."""
