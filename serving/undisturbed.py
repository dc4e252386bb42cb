"""Undisturbed: what Python does for itself waits until the orders of a bar have left.

Owns the process's garbage collector and how long a thread may keep the others waiting, while a
worker trades in it. What was loaded before is no garbage, and not searched again. Knows nothing of
trading.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds. A thread that wants on waits so long for one that computes, and it must after each
# statement of SQLite's and each write: with Python's 0.005 a bar's commit waits for the link's
# thread reading a long answer again and again.
SWITCH_SECONDS = 0.0005


@contextmanager
def settled() -> Iterator[None]:
    """For as long as a worker trades."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """For as long as orders wait; garbage is collected afterwards."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
