"""MQTT 3.1.1 and 5 over TCP, TLS and WebSocket (``docs/doors.md``, MQTT).

What one connection does: ``client`` takes its packets, ``connecting`` finds out who it is, ``live`` does what it asks
for, ``publishing`` takes what it publishes, ``link`` is its way out. What outlives it: ``session`` (subscriptions and
messages of a client), which ``broker`` finds again, or ends. What all share: ``messages`` (how a message is encoded),
``subscribing``, ``wills``, ``claims`` (other relays of a cluster), ``reasons`` (what refusals and ends are called).
``door`` listens.
"""
