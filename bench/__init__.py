"""Benchmarks: the relay side by side with its peers. ``python -m bench --help``."""
