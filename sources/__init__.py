"""sources of Ratchet."""
