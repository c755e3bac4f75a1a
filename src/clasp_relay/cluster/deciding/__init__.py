"""The relay that decides: the requests of all sessions, and the batches that its core makes of them."""
