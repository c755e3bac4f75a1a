"""History: which changes are kept, and the answers to REPLAY."""
