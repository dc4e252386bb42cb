"""The ledger: what the worker saw, decided, ordered and filled; it owns the money's history."""

from serving.ledger.printing import as_json, as_table
from serving.ledger.reader import VIEWS, LedgerReader, Lineage, experience, lineage, read
from serving.ledger.writer import Ledger

__all__ = [
    "VIEWS",
    "Ledger",
    "LedgerReader",
    "Lineage",
    "as_json",
    "as_table",
    "experience",
    "lineage",
    "read",
]
