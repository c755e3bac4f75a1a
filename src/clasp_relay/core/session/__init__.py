"""Connected clients, what they may send, and what they left to be done later."""
