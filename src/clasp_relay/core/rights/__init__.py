"""Who may do and see what, and the memory of the answers."""
