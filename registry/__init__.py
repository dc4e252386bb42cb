"""registry of Ratchet."""
