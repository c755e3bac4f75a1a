"""The journal: every change that the relay records before it acknowledges it (``journal.db``)."""
