"""The state of the relay: params, locks, life times, tombstones, shares, and announced signals."""
