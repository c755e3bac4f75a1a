"""Servers of ours to compare with."""
