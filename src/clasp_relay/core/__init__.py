"""The relay itself: decides everything about CLASP, touches nothing of the world."""
