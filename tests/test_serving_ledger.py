"""The ledger: whole bars, nothing rewritten, clear errors, old files brought forward."""

import hashlib
import json
import math
import resource
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from core.accounts import open_accounts
from core.errors import ConfigError, CorruptFile, DiskFull, SchemaMismatch, StorageError
from serving.ledger import (
    Ledger,
    LedgerReader,
    as_json,
    as_table,
    experience,
    lineage,
    read,
    writer,
)
from serving.ledger.database import _version, open_writer
from serving.ledger.printing import lineage_as_json, lineage_as_text
from serving.ledger.rows import (
    BarSeen,
    Decision,
    Equity,
    Fill,
    Intent,
    Model,
    Order,
    OrderStatus,
    Row,
    Session,
    Snapshot,
    Verdict,
)
from serving.ledger.schema import SCHEMA_VERSION, migrate

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
MONDAY = datetime(2020, 1, 6, tzinfo=UTC)
REF = "ratchet-1-a-20200106T000000-entry-3"


def rows_of_a_day(day: datetime = MONDAY, equity: float = 1000.0) -> list[Row]:
    observation = np.array([0.5, -1.0], "<f4").tobytes()
    of = {"session": 1, "agent": "a", "bar_time": day, "symbol": "X"}
    prices = {"open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5, "volume": 500.0}
    return [
        BarSeen(**of, **prices, interval="1d", dividend=0.0, split_ratio=1.0, atr=math.nan,
                volatility=0.2),
        Equity(**of, cash=equity, shares=0.0, close=10.5, equity=equity, drawdown=0.0,
               risk_state="ACTIVE"),
        Decision(**of, model_version="3", bundle_sha256="b" * 64, observation=observation,
                 observation_sha256="c" * 64, action="buy", weight=1.0, score=0.7,
                 confidence=0.9, rationale={"text": "rsi raises the weight"}),
        Verdict(**of, asked=1.0, allowed=0.8, reasons=8, words=("clipped",)),
    ]  # fmt: skip


def intent() -> Intent:
    return Intent(session=1, order_ref=REF, agent="a", bar_time=MONDAY, leg="entry",
                  model_version="3", symbol="X", shares=80.0, kind="market_on_open")  # fmt: skip


def model() -> Model:
    card = {"trial": 4, "seed": 7, "dataset_sha256": "d" * 64, "commit": "e" * 40}
    return Model(session=1, agent="a", model_version="3", bundle_sha256="b" * 64,
                 spec_sha256="f" * 64, observation_columns=("rsi", "position"),
                 card=card)  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", now=lambda: NOON, busy_seconds=0.0) as opened:
        with opened.transaction():
            opened.add(Session(session=1, broker="paper", feed="replay", mode="paper"), model())
        yield opened


def test_rows_come_back_as_they_were_written(ledger: Ledger) -> None:
    written = rows_of_a_day()
    with ledger.transaction():
        ledger.add(*written)
    bar, *others = [ledger.rows(type(row))[0] for row in written]
    assert isinstance(bar, BarSeen)
    assert math.isnan(bar.atr)
    assert others == written[1:]


def test_a_bar_is_recorded_whole_or_not_at_all(ledger: Ledger) -> None:
    rows = rows_of_a_day()
    with pytest.raises(StorageError, match="UNIQUE"), ledger.transaction():
        ledger.add(*rows, rows[0])
    assert ledger.rows(BarSeen) == []
    assert ledger.rows(Equity) == []


def test_what_was_written_cannot_be_changed_or_deleted(ledger: Ledger) -> None:
    with ledger.transaction():
        ledger.add(*rows_of_a_day())
    other = sqlite3.connect(ledger.path)
    for sql in ("UPDATE decisions SET weight = 0", "DELETE FROM equity", "DELETE FROM sessions"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            other.execute(sql)
    other.close()


def test_what_becomes_durable_is_told_at_once_or_in_order_at_the_end(ledger: Ledger) -> None:
    told: list[Row] = []
    ledger.listen(told.append)
    bar, equity, decision, _ = rows_of_a_day()
    with pytest.raises(StorageError, match="UNIQUE"), ledger.transaction():
        ledger.add(bar, bar)
    with ledger.telling_later():
        with ledger.transaction():
            ledger.add(equity)
        with ledger.transaction():
            ledger.add(intent())
        assert told == []
    assert told == [equity, intent()]
    with ledger.transaction():
        ledger.add(decision)
    assert told[2:] == [decision]


def test_the_same_intent_is_refused_a_second_time(ledger: Ledger) -> None:
    with ledger.transaction():
        ledger.add(intent())
    with (
        pytest.raises(StorageError, match="UNIQUE"),
        ledger.transaction(),
    ):
        ledger.add(intent())
    with ledger.transaction():
        assert not ledger.add_new(intent())


def test_a_fill_reported_twice_counts_once(ledger: Ledger) -> None:
    fill = Fill(session=1, exec_id="x1", agent="a", order_ref=REF, bar_time=MONDAY, symbol="X",
                leg="entry", shares=80.0, price=10.0, commission=1.0, slippage=0.1)  # fmt: skip
    with ledger.transaction():
        assert ledger.add_new(fill)
        assert not ledger.add_new(fill)
    assert ledger.rows(Fill) == [fill]


def test_the_newest_word_on_an_order_counts(ledger: Ledger) -> None:
    word = {"session": 1, "order_ref": REF, "bar_time": MONDAY, "broker_id": "p"}
    with ledger.transaction():
        ledger.add(intent())
    assert ledger.rows(Order)[0].status == "intended"
    with ledger.transaction():
        ledger.add(OrderStatus(**word, status="submitted", filled=0.0, remaining=80.0))
        ledger.add(OrderStatus(**word, status="partial", filled=30.0, remaining=50.0))
    order = ledger.rows(Order)[0]
    assert (order.status, order.filled, order.remaining, order.shares) == ("partial", 30, 50, 80)


def test_an_order_is_traced_to_dataset_and_commit(ledger: Ledger) -> None:
    with ledger.transaction():
        ledger.add(*rows_of_a_day(), intent())
    traced = lineage(ledger.path, REF)
    assert (traced.trial, traced.seed, traced.commit) == (4, 7, "e" * 40)
    assert traced.dataset_sha256 == "d" * 64
    assert traced.features == {"rsi": 0.5, "position": -1.0}
    assert traced.verdict.words == ("clipped",)
    text = lineage_as_text(traced).splitlines()
    assert [line.split()[0] for line in text] == [
        "order", "fills", "decision", "risk", "features", "version", "trial", "dataset", "commit",
    ]  # fmt: skip
    assert REF in text[0]
    assert "position -1.00, rsi +0.50" in text[4]
    assert text[-1].endswith("e" * 40)
    content = json.loads(lineage_as_json(traced))
    assert (content["order"]["order_ref"], content["dataset_sha256"]) == (REF, "d" * 64)
    with pytest.raises(StorageError, match="no order 'nonsense'"):
        lineage(ledger.path, "nonsense")


def test_experience_holds_price_features_action_and_the_reward_that_followed(
    ledger: Ledger,
) -> None:
    with ledger.transaction():
        ledger.add(*rows_of_a_day(MONDAY, 1000.0))
        ledger.add(*rows_of_a_day(MONDAY + timedelta(days=1), 1100.0))
    lived = experience(ledger.path, "a")
    expected = ["price", "volume", "rsi", "position", "sentiment", "action", "reward"]
    assert list(lived.columns) == expected
    assert lived.index.name == "timestamp"
    assert lived["reward"].iloc[0] == pytest.approx(math.log(1.1))
    assert math.isnan(lived["reward"].iloc[1])
    assert lived["action"].tolist() == [0.8, 0.8]
    assert experience(ledger.path, "nobody").empty


def test_readers_filter_and_print(ledger: Ledger) -> None:
    with ledger.transaction():
        ledger.add(*rows_of_a_day(), intent())
    assert read(ledger.path, "decisions", agent="nobody") == []
    table = as_table(read(ledger.path, "decisions", agent="a"))
    assert "rsi raises the weight" in table.splitlines()[2]
    assert '"weight": 1.0' in as_json(read(ledger.path, "decisions"))
    assert REF in as_table(read(ledger.path, "orders"))
    with ledger.transaction():
        ledger.add(Session(session=2, broker="ibkr", feed="test", mode="paper"))
    assert read(ledger.path, "orders") == []
    assert REF in as_table(read(ledger.path, "orders", session=1))
    assert [one.session for one in read(ledger.path, "sessions")] == [1, 2]
    assert as_table([]).startswith("nothing recorded in this session")
    with pytest.raises(ConfigError, match="no 'money'; it has: decisions"):
        read(ledger.path, "money")


def test_a_reader_cannot_write_and_sees_only_committed_bars(ledger: Ledger) -> None:
    with LedgerReader(ledger.path) as reader:
        with ledger.transaction():
            ledger.add(*rows_of_a_day())
            assert reader.rows(Decision) == []
        assert len(reader.rows(Decision)) == 1
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._connection.execute("DELETE FROM snapshots")


def test_an_older_ledger_is_brought_forward_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    old = sqlite3.connect(path, isolation_level=None)
    migrate(old, 0, upto=1)
    old.execute("INSERT INTO sessions VALUES (1, 5, 'paper', 'replay', 'paper', 'then')")
    old.close()
    with pytest.raises(
        SchemaMismatch, match=f"schema version 1, this Ratchet reads {SCHEMA_VERSION}"
    ):
        LedgerReader(path)
    with Ledger(path) as ledger:
        assert ledger.newest_session() == 5
        assert ledger.rows(Model) == []
    with LedgerReader(path) as reader:
        assert reader.newest_session() == 5


def test_a_failed_migration_leaves_the_old_ledger_usable(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    old = sqlite3.connect(path, isolation_level=None)
    migrate(old, 0, upto=1)
    old.execute("CREATE TABLE order_book (x)")  # in the way of the second migration's last table
    with pytest.raises(StorageError, match="order_book already exists"):
        open_writer(path)
    assert old.execute("PRAGMA user_version").fetchone() == (1,)
    assert old.execute("SELECT 1 FROM sqlite_master WHERE name = 'models'").fetchone() is None
    old.close()


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger(path).close()
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    with pytest.raises(SchemaMismatch, match=f"schema version {SCHEMA_VERSION + 1}"):
        Ledger(path)
    with pytest.raises(SchemaMismatch, match="use the newer Ratchet"):
        LedgerReader(path)


def test_the_log_is_brought_home_between_bars_and_by_no_commit(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "TIDIED_AFTER", 4)
    ledger.tidy()  # after one transaction: not yet
    empty = ledger.path.stat().st_size
    for number in (2, 3, 4):
        with ledger.transaction():  # more than the 1,000 pages after which SQLite would
            ledger.add(Session(session=number, broker="b" * 2_000_000, feed="", mode="paper"))
    assert ledger.path.stat().st_size == empty
    ledger.tidy()
    assert ledger.path.stat().st_size > empty + 6_000_000
    assert [row.session for row in ledger.rows(Session)] == [1, 2, 3, 4]


def test_a_full_disk_loses_the_bar_but_nothing_before_it(ledger: Ledger) -> None:
    with ledger.transaction():
        ledger.add(*rows_of_a_day())
    ledger._connection.execute("PRAGMA max_page_count = 1")  # SQLite's own way to fill a disk
    big = "x" * 2_000_000
    snapshot = Snapshot(session=1, agent="a", bar_time=MONDAY, state=big, sha256="")
    with pytest.raises(DiskFull, match="no space left"), ledger.transaction():
        ledger.add(*rows_of_a_day(MONDAY + timedelta(days=1)), snapshot)
    assert len(ledger.rows(BarSeen)) == 1


def test_a_file_size_limit_is_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Ledger(path) as ledger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            snapshot = Snapshot(
                session=1, agent="a", bar_time=MONDAY, state="x" * 1_000_000, sha256=""
            )
            with pytest.raises(StorageError, match=r"ledger\.db"), ledger.transaction():
                ledger.add(snapshot)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert ledger.rows(Snapshot) == []


def test_a_locked_ledger_says_who_may_write(ledger: Ledger) -> None:
    intruder = sqlite3.connect(ledger.path, isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked by another process"), ledger.transaction():
        ledger.add(*rows_of_a_day())
    intruder.close()


@pytest.mark.parametrize(("content", "words"), [
    (b"this is no database, it is a letter to a friend of mine" * 30, "damaged"),
    (b"SQLite format 3\x00" + bytes(range(256)) * 20, "damaged"),
])  # fmt: skip
def test_a_corrupted_ledger_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match=words):
        Ledger(path)
    with pytest.raises(CorruptFile, match=words):
        LedgerReader(path)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE recipes (x)")
    other.close()
    with pytest.raises(CorruptFile, match="not a ledger"):
        Ledger(path)


def test_no_ledger_yet_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no ledger yet"):
        read(tmp_path / "ledger.db", "fills")


def test_snapshots_keep_every_bit_and_only_the_newest_stay(ledger: Ledger) -> None:
    for day in range(5):
        with ledger.transaction():
            state = open_accounts(1, 1, 1000.0 / 3.0 + day)
            ledger.add_snapshot(1, "a", MONDAY + timedelta(days=day), state)
    assert len(ledger.rows(Snapshot)) == 3
    found = ledger.newest_snapshot(1, "a")
    assert found is not None
    assert found[0] == MONDAY + timedelta(days=4)
    assert found[1].cash[0] == 1000.0 / 3.0 + 4
    assert ledger.newest_snapshot(1, "nobody") is None


def test_an_altered_snapshot_is_refused(ledger: Ledger) -> None:
    with ledger.transaction():
        ledger.add_snapshot(1, "a", MONDAY, open_accounts(1, 1, 1000.0))
    ledger._connection.execute("UPDATE snapshots SET state = replace(state, '0x', '-0x')")
    with pytest.raises(CorruptFile, match="snapshot of a at 2020-01-06"):
        ledger.newest_snapshot(1, "a")


def test_a_snapshot_of_another_engine_is_passed_over(ledger: Ledger) -> None:
    text = '{"clock": 3, "wealth": 4}'
    digest = hashlib.sha256(text.encode()).hexdigest()
    with ledger.transaction():
        ledger.add(Snapshot(session=1, agent="a", bar_time=MONDAY, state=text, sha256=digest))
    assert ledger.newest_snapshot(1, "a") is None


def test_who_looks_while_the_ledger_is_made_sees_nothing_of_it_or_all(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    writer, reader = (sqlite3.connect(path, isolation_level=None) for _ in range(2))
    writer.execute("PRAGMA journal_mode = WAL")

    def meanwhile(statement: str) -> None:
        if "sqlite_master" in statement:
            reader.set_trace_callback(None)
            migrate(writer, 0)

    reader.set_trace_callback(meanwhile)
    assert _version(reader, path) == 0
    assert _version(reader, path) == SCHEMA_VERSION
    for connection in (writer, reader):
        connection.close()
