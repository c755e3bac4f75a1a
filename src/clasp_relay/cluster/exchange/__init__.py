"""What the relays of a cluster send each other, and the interface of the engine that carries it."""
