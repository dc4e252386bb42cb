"""The ledger as its one writer sees it: transactions of rows, and what a restart must know.

Owns atomicity: what belongs to one bar of one agent is committed together or not at all. Knows
nothing of trading.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from core.accounts import State, state_from_json, state_to_json
from core.errors import CorruptFile, StorageError
from core.masking import confidential, masked
from serving.ledger.database import open_writer, renamed
from serving.ledger.reader import Reading
from serving.ledger.rows import (
    RiskEvent,
    Row,
    RowType,
    SessionEvent,
    Snapshot,
    columns_of,
    iso,
    values_of,
)

SNAPSHOTS_KEPT = 3
TOLD = (RiskEvent, SessionEvent)  # their details are the words of errors, too
TIDIED_AFTER = 200  # transactions


class Ledger(Reading):
    """The one writer; also reads. Use as a context manager."""

    def __init__(
        self,
        path: Path,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        busy_seconds: float = 5.0,
    ) -> None:
        super().__init__(open_writer(path, busy_seconds), path)
        self._now = now
        self._secrets = confidential(os.environ)
        self._untidy = 0  # transactions since the log was last brought home
        self._added: list[Row] = []  # inside the transaction at hand
        self._untold: list[Row] = []  # durable
        self._tells = True
        self._told: Callable[[Row], None] = lambda row: None

    def listen(self, told: Callable[[Row], None]) -> None:
        """Tell every row from now on, once it is durable; ``told`` must neither wait nor raise."""
        self._told = told

    def __enter__(self) -> Self:
        return self

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything added inside, durably, or nothing; raise ``StorageError``."""
        self._execute("BEGIN IMMEDIATE")
        self._added = []
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._untidy += 1
        self._untold += self._added
        self._tell()

    @contextmanager
    def telling_later(self) -> Iterator[None]:
        """Tell of what becomes durable inside at the end of it: who hears of a row wakes up, and
        would keep an order waiting that is to leave right after its commit."""
        self._tells = False
        try:
            yield
        finally:
            self._tells = True
            self._tell()

    def _tell(self) -> None:
        if self._tells:
            untold, self._untold = self._untold, []
            for row in untold:
                self._told(row)

    def tidy(self) -> None:
        """Bring the write-ahead log home now and then; call when nobody waits for a commit."""
        if self._untidy < TIDIED_AFTER:
            return
        self._untidy = 0
        with suppress(sqlite3.Error):  # what stays in the log is as durable; a commit will tell
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def add(self, *rows: Row) -> None:
        """Append rows inside a transaction; raise ``StorageError`` when one is there already."""
        recorded_at = iso(self._now())
        for row in rows:
            if isinstance(row, TOLD):
                row = replace(row, detail=masked(row.detail, self._secrets))
            self._execute(_insert(type(row)), (*values_of(row), recorded_at))
            self._added.append(row)

    def add_new(self, row: Row) -> bool:
        """Append a row unless its key is known; return whether it was new."""
        sql = _insert(type(row)) + " ON CONFLICT DO NOTHING"
        new = bool(self._execute(sql, (*values_of(row), iso(self._now()))).rowcount)
        if new:
            self._added.append(row)
        return new

    def add_snapshot(self, session: int, agent: str, bar_time: datetime, state: State) -> None:
        """Keep a sleeve's state; older snapshots than the newest few go."""
        text = json.dumps(state_to_json(state), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.add(
            Snapshot(session=session, agent=agent, bar_time=bar_time, state=text, sha256=digest)
        )
        self._execute(
            "DELETE FROM snapshots WHERE session = ? AND agent = ? AND id NOT IN (SELECT id FROM "
            "snapshots WHERE session = ? AND agent = ? ORDER BY id DESC LIMIT ?)",
            (session, agent, session, agent, SNAPSHOTS_KEPT),
        )

    def newest_snapshot(self, session: int, agent: str) -> tuple[datetime, State] | None:
        """Return bar time and state of the newest snapshot.

        None as well where another engine wrote it: the recorded bars are lived through again.
        Raises ``CorruptFile`` where it was altered.
        """
        found = self.rows(Snapshot, session=session, agent=agent, newest=1)
        if not found:
            return None
        snapshot = found[0]
        if hashlib.sha256(snapshot.state.encode()).hexdigest() != snapshot.sha256:
            raise CorruptFile(
                f"{self.path}: the snapshot of {agent} at {snapshot.bar_time.isoformat()} does "
                "not match its hash; restore a copy of the ledger"
            )
        try:
            return snapshot.bar_time, state_from_json(json.loads(snapshot.state))
        except CorruptFile:
            return None

    def last(self, row_type: type[RowType], **equals: Any) -> RowType | None:
        """Return the newest row with these values, if any."""
        found = self.rows(row_type, newest=1, **equals)
        return found[0] if found else None

    def _execute(self, sql: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, values)
        except sqlite3.Error as error:
            raise renamed(error, self.path) from error


_INSERTS: dict[type[Row], str] = {}  # made once for each class


def _insert(row_type: type[Row]) -> str:
    if row_type not in _INSERTS:
        _INSERTS[row_type] = _insert_of(row_type)
    return _INSERTS[row_type]


def _insert_of(row_type: type[Row]) -> str:
    columns = columns_of(row_type)
    if row_type.TABLE in ("order_book", "events"):
        raise StorageError(f"{row_type.TABLE} is a view of the ledger, nothing can be added to it")
    names = ", ".join((*columns, "recorded_at"))
    return f"INSERT INTO {row_type.TABLE} ({names}) VALUES ({', '.join('?' * (len(columns) + 1))})"
