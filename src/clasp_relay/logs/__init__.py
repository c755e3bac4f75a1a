"""The log: the catalogue of events, levels, the format of lines, targets, and limits for repeated lines."""
