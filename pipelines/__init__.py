"""pipelines of Ratchet."""
