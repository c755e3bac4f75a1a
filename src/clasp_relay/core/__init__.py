"""The core of the relay: decides what each CLASP message does, without sockets, files or a clock of its own."""
