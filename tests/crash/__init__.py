"""Crash at every step: the worker is killed with SIGKILL wherever ledger and broker can part.

    python -m crash --runs 1000 --seed 1

A worker trades a short script through the real ``ib_async`` client, in a process of its own; the
fake TWS lives in this one, survives, and keeps the broker's books. The process is killed at a
crossing of a named boundary (``boundaries``), or after a random while, again while it recovers
from that, and is started anew until the session is closed. Then the run is held against one that
nobody interrupted, and the ledger against the broker (``verdict``).
"""
