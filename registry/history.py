"""The promotion ledger: what was judged, promoted, rolled back and looked at, in order, for ever.

Owns the SQLite file ``Home.promotions``: one append-only table whose rows are chained by hash.
Triggers forbid changing or deleting a row; whoever gets around them breaks the chain, and every
read notices. The newest row's hash is kept in a file beside it, so that rows cut off at the end
are missed, too. Who writes the whole chain and that file anew is found only by what stands
elsewhere: versions in MLflow hold the hash of the entry that promoted them. Must not know what the
entries mean (``registry/promotion.py``) nor MLflow.
"""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import CorruptFile, DiskFull, SchemaMismatch, StorageError

SCHEMA = 1  # PRAGMA user_version of the file
GENESIS = "0" * 64  # what the first row follows
BUSY_SECONDS = 10.0  # how long a writer waits for another

_TABLES = """
CREATE TABLE entries (
    id       INTEGER PRIMARY KEY,       -- 1, 2, 3 … without a gap
    at       TEXT NOT NULL,             -- ISO 8601, UTC
    agent    TEXT NOT NULL,
    kind     TEXT NOT NULL,
    body     TEXT NOT NULL,             -- canonical JSON
    previous TEXT NOT NULL,             -- hash of the row before
    hash     TEXT NOT NULL UNIQUE
);
CREATE INDEX entries_by_agent ON entries (agent, kind, id);
CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the promotion ledger is append-only'); END;
CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the promotion ledger is append-only'); END;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the ledger."""

    id: int
    at: datetime  # UTC
    agent: str
    kind: str
    body: Mapping[str, Any]
    hash: str  # of this row and, through the row before, of all rows before


def append(path: Path, at: datetime, agent: str, kind: str, body: Mapping[str, Any]) -> Entry:
    """Add one entry durably and return it; raise ``StorageError`` when it cannot be written."""
    if at.tzinfo is None:
        raise StorageError(f"{path}: {at} has no time zone; entries are timed in UTC")
    moment = at.astimezone(UTC).isoformat()
    text = json.dumps(body, sort_keys=True, allow_nan=False)
    with _opened(path, create=True) as database, database:
        database.execute("BEGIN IMMEDIATE")
        newest = database.execute("SELECT id, hash FROM entries ORDER BY id DESC LIMIT 1")
        last_id, last_hash = newest.fetchone() or (0, GENESIS)
        row = (last_id + 1, moment, agent, kind, text, last_hash)
        own = _hash(row)
        database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, own))
    _keep_head(path, row[0], own)
    return Entry(row[0], at.astimezone(UTC), agent, kind, json.loads(text), own)


def read(path: Path, agent: str | None = None) -> list[Entry]:
    """Return the entries of one agent (or all), oldest first, after checking the whole chain.

    Raises ``CorruptFile`` naming the first row that was altered, removed or inserted.
    """
    if not path.exists():
        return []
    with _opened(path, create=False) as database:
        rows = database.execute("SELECT * FROM entries ORDER BY id").fetchall()
    previous = GENESIS
    for number, row in enumerate(rows, start=1):
        if row[0] != number or row[5] != previous or row[6] != _hash(row[:6]):
            raise CorruptFile(
                f"{path}: the chain of hashes breaks at entry {number}: an entry was altered, "
                "removed or inserted; restore the file from a backup"
            )
        previous = row[6]
    return [
        Entry(row[0], datetime.fromisoformat(row[1]), row[2], row[3], json.loads(row[4]), row[6])
        for row in rows
        if agent is None or row[2] == agent
    ]


def audit(path: Path) -> list[str]:
    """Return a sentence for every entry that was altered, removed, inserted or moved.

    Empty when all is well. Where ``read`` stops at the first break, this goes on to the last.
    """
    if not path.exists():
        head = _head(path)
        return [f"{path}: the ledger is gone; it had {head[0]} entries"] if head else []
    with _opened(path, create=False) as database:
        rows = database.execute("SELECT * FROM entries ORDER BY id").fetchall()
        triggers = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        absent = {"entries_no_update", "entries_no_delete"} - {name for (name,) in triggers}
    found = [f"{path}: the trigger {name} was dropped" for name in sorted(absent)]
    expected, previous = 1, GENESIS
    for row in rows:
        what = f"entry {row[0]} ({row[3]} of {row[2]}, {row[1]})"
        if row[0] != expected:
            gone = f"entry {expected}" if row[0] == expected + 1 else f"{expected} to {row[0] - 1}"
            found.append(f"{path}: {gone} was removed, before {what}")
        if row[6] != _hash(row[:6]):
            found.append(f"{path}: {what} was altered: its hash is another")
        elif row[5] != previous and row[0] == expected:
            found.append(
                f"{path}: {what} does not follow the entry before it: one of the two was altered, "
                "inserted or moved"
            )
        expected, previous = row[0] + 1, row[6]
    head = _head(path)
    if head and head[0] >= expected:
        found.append(f"{path}: entries {expected} to {head[0]} were removed from the end")
    elif head and head[1] not in {row[6] for row in rows}:
        found.append(f"{path}: entry {head[0]} is not the one that was written; it was replaced")
    return found


def unguarded(path: Path) -> list[str]:
    """Return a sentence where entries cut off at the end could not be told; empty when they could.

    Only the file with the newest hash tells that; the next entry writes it again.
    """
    if not path.exists() or _head(path) or not read(path):
        return []
    return [
        f"{_head_path(path)}: missing; without it nobody can tell whether entries were cut off at "
        "the end of the ledger. Compare the ledger with a backup"
    ]


def _head_path(path: Path) -> Path:
    return path.with_suffix(".head")


def _keep_head(path: Path, number: int, own: str) -> None:
    """Remember the newest entry; after a crash the file is one behind, which is no harm."""
    head = _head_path(path)
    partial = head.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    try:
        partial.write_text(f"{number} {own}\n")
        partial.replace(head)
    except OSError as error:
        raise StorageError(f"{head}: cannot be written ({error})") from error


def _head(path: Path) -> tuple[int, str] | None:
    try:
        number, own = _head_path(path).read_text().split()
        return int(number), own
    except (OSError, ValueError):
        return None


def _hash(row: tuple[Any, ...]) -> str:
    return hashlib.sha256(json.dumps(row).encode()).hexdigest()


@contextmanager
def _opened(path: Path, create: bool) -> Iterator[sqlite3.Connection]:
    """Open the ledger, made on first use; rename SQLite's errors."""
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        with closing(database):
            database.execute("PRAGMA synchronous = FULL")
            _require_schema(path, database)
            yield database
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise DiskFull(f"{path}: no space left; nothing was written, free some") from error
        raise StorageError(f"{path}: the promotion ledger cannot be used ({error})") from error
    except sqlite3.DatabaseError as error:
        raise CorruptFile(
            f"{path}: not a readable promotion ledger ({error}); restore it from a backup"
        ) from error


def _require_schema(path: Path, database: sqlite3.Connection) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA:
        return
    if version > SCHEMA:
        raise SchemaMismatch(
            f"{path}: has schema {version}, this Ratchet knows {SCHEMA}; use the newer Ratchet"
        )
    with database:
        database.execute("BEGIN IMMEDIATE")  # another process may be creating it, too
        if database.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in _statements():
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {SCHEMA}")


def _statements() -> list[str]:
    """Split ``_TABLES``: ``executescript`` would commit the transaction it runs in."""
    statements: list[str] = []
    pending = ""
    for line in _TABLES.strip().splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
