"""A relay that follows: what its sessions asked of the decider, and what they are told."""
