"""What is kept on disk: the state file, and how it is made and read."""
