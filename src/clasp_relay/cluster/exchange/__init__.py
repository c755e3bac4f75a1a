"""What the relays of a cluster send each other, the ledger of it, and the interface of the engine that carries it."""
