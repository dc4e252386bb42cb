"""features of Ratchet."""
