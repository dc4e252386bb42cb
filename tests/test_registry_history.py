"""The promotion ledger keeps every entry, and notices when somebody did not."""

import hashlib
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from core.errors import CorruptFile, SchemaMismatch, StorageError
from registry.history import append, audit, read

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "promotions.db"
    for number in range(4):
        agent = "aapl" if number % 2 == 0 else "ixic3x"
        append(path, NOON + timedelta(hours=number), agent, "look", {"number": number})
    return path


def tamper(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def test_entries_come_back_in_order(ledger: Path) -> None:
    entries = read(ledger)
    assert [entry.id for entry in entries] == [1, 2, 3, 4]
    assert [entry.body["number"] for entry in read(ledger, "aapl")] == [0, 2]
    assert entries[1].at == NOON + timedelta(hours=1)
    assert len({entry.hash for entry in entries}) == 4


def test_an_absent_ledger_is_empty_and_stays_absent(tmp_path: Path) -> None:
    assert read(tmp_path / "promotions.db") == []
    assert list(tmp_path.iterdir()) == []


def test_times_are_kept_in_utc(tmp_path: Path) -> None:
    tokyo = datetime(2026, 3, 2, 21, tzinfo=timezone(timedelta(hours=9)))
    assert append(tmp_path / "p.db", tokyo, "a", "look", {}).at == NOON
    assert read(tmp_path / "p.db")[0].at.utcoffset() == timedelta(0)
    with pytest.raises(StorageError, match="has no time zone"):
        append(tmp_path / "p.db", datetime(2026, 3, 2), "a", "look", {})


@pytest.mark.parametrize(
    "statement", ["UPDATE entries SET agent = 'x' WHERE id = 2", "DELETE FROM entries WHERE id = 4"]
)
def test_rows_can_neither_change_nor_go(ledger: Path, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        tamper(ledger, statement)
    assert len(read(ledger)) == 4


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("UPDATE entries SET body = '{\"number\": 9}' WHERE id = 2", 2),
        ("UPDATE entries SET at = '2020-01-01T00:00:00+00:00' WHERE id = 3", 3),
        ("DELETE FROM entries WHERE id = 2", 2),
        ("INSERT INTO entries VALUES (5, '2026', 'a', 'look', '{}', 'f', 'f')", 5),
    ],
)
def test_tampering_behind_the_triggers_is_noticed(
    ledger: Path, statement: str, broken: int
) -> None:
    tamper(
        ledger,
        "DROP TRIGGER entries_no_update",
        "DROP TRIGGER entries_no_delete",
        statement,
    )
    with pytest.raises(CorruptFile, match=f"chain of hashes breaks at entry {broken}:"):
        read(ledger)


def test_a_forger_who_hashes_again_breaks_the_next_link(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as database, database:
        database.execute("DROP TRIGGER entries_no_update")
        row = database.execute("SELECT * FROM entries WHERE id = 2").fetchone()
        forged = (*row[:4], '{"number": 9}', row[5])
        own = hashlib.sha256(json.dumps(forged).encode()).hexdigest()
        change = "UPDATE entries SET body = ?, hash = ? WHERE id = 2"
        database.execute(change, (forged[4], own))
    with pytest.raises(CorruptFile, match="chain of hashes breaks at entry 3:"):
        read(ledger)


def test_a_newer_ledger_is_left_alone(ledger: Path) -> None:
    tamper(ledger, "PRAGMA user_version = 2")
    with pytest.raises(SchemaMismatch, match="has schema 2, this Ratchet knows 1"):
        append(ledger, NOON, "aapl", "look", {})


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.db").write_text("not a database, but long enough to look like a header" * 50)
    with pytest.raises(CorruptFile, match=r"p\.db: not a readable promotion ledger"):
        read(tmp_path / "p.db")


def test_many_writers_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "p.db"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: append(path, NOON, f"a{n % 3}", "look", {"n": n}), range(40)))
    entries = read(path)
    assert [entry.id for entry in entries] == list(range(1, 41))
    assert {entry.body["n"] for entry in entries} == set(range(40))


def swapped(one: int, other: int) -> tuple[str, ...]:
    return (
        f"UPDATE entries SET id = -1 WHERE id = {one}",
        f"UPDATE entries SET id = {one} WHERE id = {other}",
        f"UPDATE entries SET id = {other} WHERE id = -1",
    )


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (("UPDATE entries SET agent = 'x' WHERE id = 2",), ["entry 2 (look of x"]),
        (("DELETE FROM entries WHERE id = 2",), ["entry 2 was removed, before entry 3"]),
        (("DELETE FROM entries WHERE id > 2",), ["entries 3 to 4 were removed from the end"]),
        (swapped(2, 3), ["entry 2 (look of aapl", "entry 3 (look of ixic3x"]),
        (
            ("UPDATE entries SET body = '{}' WHERE id = 1", "DELETE FROM entries WHERE id = 4"),
            ["entry 1 (look of aapl", "entries 4 to 4 were removed from the end"],
        ),
    ],
)
def test_the_audit_names_every_row_that_was_touched(
    ledger: Path, statements: tuple[str, ...], named: list[str]
) -> None:
    assert audit(ledger) == []
    tamper(ledger, "DROP TRIGGER entries_no_update", "DROP TRIGGER entries_no_delete", *statements)
    found = audit(ledger)
    assert [one for one in found if "trigger" in one] == found[:2]
    for words in named:
        assert any(words in one for one in found[2:])


def test_the_audit_misses_a_ledger_that_was_taken_away(ledger: Path) -> None:
    ledger.unlink()
    assert "the ledger is gone; it had 4 entries" in audit(ledger)[0]
