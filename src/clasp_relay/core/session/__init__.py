"""Sessions, the messages that they may send and how many, their memory, and their scheduled bundles."""
