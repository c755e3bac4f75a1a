"""What is kept of the past, and REPLAY, which answers with it."""
