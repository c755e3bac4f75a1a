"""WebSocket: Autobahn protocols, outboxes, and one write per session and turn of the event loop."""
