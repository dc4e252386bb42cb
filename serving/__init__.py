"""serving of Ratchet."""
