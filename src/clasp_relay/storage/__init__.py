"""What is kept on disk: the state file, the journal, ``users.db``, and sent files."""
