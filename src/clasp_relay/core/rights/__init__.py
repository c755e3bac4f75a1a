"""The core's questions about rights, and the memory that caches the answers."""
