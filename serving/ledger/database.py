"""The ledger's file: opened for its one writer or for readers, with errors in our own words.

Owns connections, versions and the renaming of SQLite's errors. Knows no table.
"""

import sqlite3
from pathlib import Path

from core.errors import CorruptFile, DiskFull, RatchetError, SchemaMismatch, StorageError
from serving.ledger.schema import APPLICATION_ID, SCHEMA_VERSION, migrate

# Of the write-ahead log, after which a commit brings it home itself: the writer does so before,
# between bars (``Ledger.tidy``), since it takes as long as many commits.
LOG_PAGES = 10_000


def open_writer(path: Path, busy_seconds: float = 5.0) -> sqlite3.Connection:
    """Open (create, migrate) the ledger to write; every commit is on disk before it returns."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            path, timeout=busy_seconds, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"{path}: the ledger cannot be opened ({error})") from error
    try:
        version = _version(connection, path)
        _require_whole(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        if version < SCHEMA_VERSION:
            migrate(connection, version)
    except sqlite3.Error as error:
        connection.close()
        raise renamed(error, path) from error
    except RatchetError:
        connection.close()
        raise
    return connection


def open_reader(path: Path, busy_seconds: float = 5.0) -> sqlite3.Connection:
    """Open the ledger read-only; never waits for the writer nor holds it up."""
    if not path.exists():
        raise StorageError(f"{path}: no ledger yet; `ratchet serve` writes one")
    try:
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=busy_seconds,
            isolation_level=None, check_same_thread=False,
        )  # fmt: skip
        version = _version(connection, path)
    except sqlite3.Error as error:
        raise renamed(error, path) from error
    if version < SCHEMA_VERSION:
        connection.close()
        raise SchemaMismatch(
            f"{path}: a ledger of schema version {version}, this Ratchet reads {SCHEMA_VERSION}; "
            "start `ratchet serve` once, which brings it up to date"
        )
    return connection


def _require_whole(connection: sqlite3.Connection, path: Path) -> None:
    """Read every page once: what is damaged must not be found out in the middle of trading."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(path, str(found))


def damaged(path: Path, found: object) -> CorruptFile:
    return CorruptFile(
        f"{path}: the ledger is damaged ({found}); move it away with its -wal and -shm files, "
        "or restore a copy"
    )


def _version(connection: sqlite3.Connection, path: Path) -> int:
    connection.execute("BEGIN")  # one look: the writer may be making it at this moment
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        application = int(connection.execute("PRAGMA application_id").fetchone()[0])
        tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    if tables and application != APPLICATION_ID:
        raise CorruptFile(f"{path}: an SQLite database, but not a ledger; move it away")
    if version > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{path}: a ledger of schema version {version}, this Ratchet knows {SCHEMA_VERSION}; "
            "use the newer Ratchet, or another RATCHET_HOME"
        )
    return version


def renamed(error: sqlite3.Error, path: Path) -> StorageError:
    """Return Ratchet's error for one of SQLite's; the transaction it hit has left no trace."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(f"{path}: no space left; the bar was not recorded, free some and restart")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(
            f"{path}: locked by another process ({error}); only the worker may write the ledger"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, error)
    if code == sqlite3.SQLITE_CONSTRAINT:
        return StorageError(f"{path}: refused: {error}")
    return StorageError(f"{path}: the ledger cannot be used ({error})")
