"""The engine: NATS with JetStream, its log and its object store. Only here is ``nats-py`` imported."""
