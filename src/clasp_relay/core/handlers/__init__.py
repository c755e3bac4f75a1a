"""One file per family of messages; each handler is one function of relay, session and message."""
