"""A glimpse of the registry: which version holds which alias, at a look, without MLflow's library.

Owns the short cut for models kept in a home's own SQLite file: importing MLflow takes seconds, a
look into its file a millisecond. Reads only; what it cannot read so, it asks
``registry/models.py``, which names what is wrong. Nobody trades by it.
"""

import contextlib
import sqlite3

from core.home import Home
from registry import connection

_HELD = (
    "SELECT alias, version FROM registered_model_aliases WHERE name = ? AND workspace = 'default'"
)
_ORDER = ("Production", "Challenger", "Previous")


def aliases(home: Home, agent: str) -> dict[str, int]:
    """Return which version holds which alias; empty where there are none, nor can be."""
    if not connection.exists(home):
        return {}  # and a look makes no database
    held = _glimpsed(home, agent)
    if held is None:
        from registry import models

        return {str(alias): number for alias, number in models.aliases(home, agent).items()}
    return {alias: held[alias] for alias in _ORDER if alias in held}


def _glimpsed(home: Home, agent: str) -> dict[str, int] | None:
    """Return what MLflow's file says; None: it is elsewhere, or made by another MLflow."""
    uri = connection.backend_uri(home)
    if not uri.startswith("sqlite:///") or "?" in uri:
        return None
    path = uri.removeprefix("sqlite:///")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return {str(alias): int(version) for alias, version in database.execute(_HELD, [agent])}
    except sqlite3.Error:
        return None
