"""MQTT 3.1.1 and 5 over TCP, TLS and WebSocket (``docs/doors.md``, MQTT).

For one connection: ``client`` takes its packets, ``connecting`` handles its CONNECT, ``live`` the packets after that,
``publishing`` its PUBLISHes; ``link`` is the outgoing side. Beyond a connection: ``session`` (subscriptions and
messages of a client), which ``broker`` finds again, or ends. For all clients: ``messages`` (the codec),
``subscribing``, ``wills``, ``claims`` (other relays of a cluster), ``reasons`` (the codes of refusals and ends).
``door`` listens.
"""
