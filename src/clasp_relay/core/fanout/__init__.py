"""Who gets what, when, and how often."""
