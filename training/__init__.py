"""training of Ratchet."""
