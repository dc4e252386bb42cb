"""flows of Ratchet."""
