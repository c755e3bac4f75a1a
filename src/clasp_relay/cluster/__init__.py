"""A cluster of relays: one decides, the others follow its log, which is a stream of NATS with JetStream.

Nothing of this is imported without ``--cluster``. ``docs/architecture.md`` has the way of a SET through a follower, and
``docs/cluster.md`` what the cluster guarantees.
"""
