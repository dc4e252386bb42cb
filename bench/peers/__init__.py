"""Peers: one script each, run by a virtual environment of its own; they import nothing of Ratchet
but ``bench.speak`` (and, where Ratchet's market is what they learn, that market)."""
