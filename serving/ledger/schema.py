"""The ledger's tables, as forward migrations.

Owns the SQL. ``PRAGMA user_version`` counts the migrations a file has lived through; a released
migration is never edited, a change is a new one at the end. What happened is never rewritten:
triggers refuse UPDATE and DELETE on every table but ``snapshots``, which is a cache.
"""

import sqlite3

APPLICATION_ID = 0x52415443  # "RATC": tells a ledger from any other SQLite file

_KEYS = "id INTEGER PRIMARY KEY, session INTEGER NOT NULL"
_WHEN = "recorded_at TEXT NOT NULL"

_FIRST = (
    f"""CREATE TABLE sessions ({_KEYS} UNIQUE, broker TEXT NOT NULL, feed TEXT NOT NULL,
        mode TEXT NOT NULL, {_WHEN}) STRICT""",
    f"""CREATE TABLE session_events ({_KEYS}, kind TEXT NOT NULL, pid INTEGER NOT NULL,
        detail TEXT NOT NULL, {_WHEN}) STRICT""",
    f"""CREATE TABLE bars ({_KEYS}, agent TEXT NOT NULL, bar_time TEXT NOT NULL,
        symbol TEXT NOT NULL, interval TEXT NOT NULL, open REAL NOT NULL, high REAL NOT NULL,
        low REAL NOT NULL, close REAL NOT NULL, volume REAL NOT NULL, dividend REAL NOT NULL,
        split_ratio REAL NOT NULL, atr REAL, volatility REAL, {_WHEN},
        UNIQUE (session, agent, bar_time, symbol)) STRICT""",
    f"""CREATE TABLE decisions ({_KEYS}, agent TEXT NOT NULL, bar_time TEXT NOT NULL,
        symbol TEXT NOT NULL, model_version TEXT NOT NULL, bundle_sha256 TEXT NOT NULL,
        observation BLOB NOT NULL, observation_sha256 TEXT NOT NULL, action TEXT NOT NULL,
        weight REAL, score REAL, confidence REAL, rationale TEXT NOT NULL, {_WHEN},
        UNIQUE (session, agent, bar_time, symbol)) STRICT""",
    f"""CREATE TABLE verdicts ({_KEYS}, agent TEXT NOT NULL, bar_time TEXT NOT NULL,
        symbol TEXT NOT NULL, asked REAL, allowed REAL, reasons INTEGER NOT NULL,
        words TEXT NOT NULL, {_WHEN}, UNIQUE (session, agent, bar_time, symbol)) STRICT""",
    f"""CREATE TABLE intents ({_KEYS}, order_ref TEXT NOT NULL UNIQUE, agent TEXT NOT NULL,
        bar_time TEXT NOT NULL, leg TEXT NOT NULL, model_version TEXT NOT NULL,
        symbol TEXT NOT NULL, shares REAL NOT NULL, kind TEXT NOT NULL, {_WHEN},
        UNIQUE (session, agent, bar_time, leg, model_version)) STRICT""",
    f"""CREATE TABLE orders ({_KEYS}, order_ref TEXT NOT NULL, bar_time TEXT NOT NULL,
        status TEXT NOT NULL, filled REAL NOT NULL, remaining REAL NOT NULL,
        broker_id TEXT NOT NULL, {_WHEN}) STRICT""",
    f"""CREATE TABLE fills ({_KEYS}, exec_id TEXT NOT NULL UNIQUE, agent TEXT NOT NULL,
        order_ref TEXT NOT NULL, bar_time TEXT NOT NULL, symbol TEXT NOT NULL, leg TEXT NOT NULL,
        shares REAL NOT NULL, price REAL NOT NULL, commission REAL NOT NULL,
        slippage REAL NOT NULL, {_WHEN}) STRICT""",
    f"""CREATE TABLE equity ({_KEYS}, agent TEXT NOT NULL, bar_time TEXT NOT NULL,
        symbol TEXT NOT NULL, cash REAL NOT NULL, shares REAL NOT NULL, close REAL NOT NULL,
        equity REAL NOT NULL, drawdown REAL NOT NULL, risk_state TEXT NOT NULL, {_WHEN},
        UNIQUE (session, agent, bar_time)) STRICT""",
    f"""CREATE TABLE risk_events ({_KEYS}, agent TEXT NOT NULL, bar_time TEXT, kind TEXT NOT NULL,
        detail TEXT NOT NULL, {_WHEN}) STRICT""",
    f"""CREATE TABLE alias_changes ({_KEYS}, agent TEXT NOT NULL, alias TEXT NOT NULL,
        model_version TEXT NOT NULL, bundle_sha256 TEXT NOT NULL, previous_version TEXT NOT NULL,
        bar_time TEXT, {_WHEN}) STRICT""",
    f"""CREATE TABLE snapshots ({_KEYS}, agent TEXT NOT NULL, bar_time TEXT NOT NULL,
        state TEXT NOT NULL, sha256 TEXT NOT NULL, {_WHEN}) STRICT""",
    "CREATE INDEX orders_by_ref ON orders (order_ref)",
    "CREATE INDEX fills_by_ref ON fills (order_ref)",
)

# Lineage: which model stands behind a version, and the newest word on every order.
_SECOND = (
    f"""CREATE TABLE models ({_KEYS}, agent TEXT NOT NULL, model_version TEXT NOT NULL,
        bundle_sha256 TEXT NOT NULL, spec_sha256 TEXT NOT NULL,
        observation_columns TEXT NOT NULL, card TEXT NOT NULL, {_WHEN},
        UNIQUE (session, agent, model_version, bundle_sha256)) STRICT""",
    """CREATE VIEW order_book AS
        SELECT i.id AS id, i.session, i.order_ref, i.agent, i.bar_time, i.leg, i.model_version,
            i.symbol, i.shares, i.kind, coalesce(o.status, 'intended') AS status,
            coalesce(o.filled, 0.0) AS filled, coalesce(o.remaining, i.shares) AS remaining,
            i.recorded_at AS recorded_at
        FROM intents i LEFT JOIN orders o
            ON o.id = (SELECT max(id) FROM orders WHERE order_ref = i.order_ref)""",
    """CREATE VIEW events AS
        SELECT row_number() OVER (ORDER BY recorded_at, origin, origin_id) AS id, session, agent,
            bar_time, kind, detail, recorded_at
        FROM (
            SELECT 1 AS origin, id AS origin_id, session, '' AS agent, NULL AS bar_time,
                'session ' || kind AS kind, detail, recorded_at FROM session_events
            UNION ALL
            SELECT 2, id, session, agent, bar_time, 'alias',
                alias || ' is version ' || model_version || CASE previous_version
                    WHEN '' THEN '' ELSE ', was ' || previous_version END, recorded_at
                FROM alias_changes
            UNION ALL
            SELECT 3, id, session, agent, bar_time, kind, detail, recorded_at FROM risk_events)""",
)

# What a broker across a network told, as it told it: fills are what the books made of it.
_THIRD = (
    f"""CREATE TABLE executions ({_KEYS}, exec_id TEXT NOT NULL, order_ref TEXT NOT NULL,
        agent TEXT NOT NULL, symbol TEXT NOT NULL, leg TEXT NOT NULL, shares REAL NOT NULL,
        price REAL NOT NULL, commission REAL, executed_at TEXT NOT NULL, {_WHEN}) STRICT""",
    "CREATE UNIQUE INDEX executions_once ON executions (exec_id, coalesce(commission, 'open'))",
    f"""CREATE TABLE levels ({_KEYS}, order_ref TEXT NOT NULL UNIQUE, price REAL NOT NULL,
        {_WHEN}) STRICT""",
)

# What a replay needs beside policy and bars: limits of the whole account, rules that changed.
_CLIPS_AND_RULES = (
    f"""CREATE TABLE clips ({_KEYS}, agent TEXT NOT NULL, bar_time TEXT NOT NULL,
        symbol TEXT NOT NULL, wanted REAL NOT NULL, allowed REAL, reason INTEGER NOT NULL,
        detail TEXT NOT NULL, {_WHEN}, UNIQUE (session, agent, bar_time)) STRICT""",
    f"""CREATE TABLE rule_changes ({_KEYS}, agent TEXT NOT NULL, bar_time TEXT,
        rules TEXT NOT NULL, changes TEXT NOT NULL, {_WHEN}) STRICT""",
)

# What a person did to a sleeve between two closes, so that its books can be lived through again.
_INTERVENTIONS = (
    f"""CREATE TABLE interventions ({_KEYS}, agent TEXT NOT NULL, bar_time TEXT NOT NULL,
        policy TEXT NOT NULL, detail TEXT NOT NULL, {_WHEN}) STRICT""",
)

# Challengers beside Production: when a comparison began and from which books, its bars, its end.
_VERSUS = "agent TEXT NOT NULL, production_version TEXT NOT NULL, model_version TEXT NOT NULL"
_SHADOWS = (
    f"""CREATE TABLE shadows ({_KEYS}, {_VERSUS}, production_sha256 TEXT NOT NULL,
        bundle_sha256 TEXT NOT NULL, begun_after TEXT, state TEXT NOT NULL, place INTEGER NOT NULL,
        alpha REAL NOT NULL, drop_alpha REAL NOT NULL, longest_bars INTEGER NOT NULL,
        {_WHEN}) STRICT""",
    f"""CREATE TABLE shadow_bars ({_KEYS}, {_VERSUS}, place INTEGER NOT NULL,
        bar_time TEXT NOT NULL, asked REAL, action TEXT NOT NULL, weight REAL NOT NULL,
        atr REAL, volatility REAL, stale INTEGER NOT NULL, equity REAL NOT NULL,
        log_return REAL NOT NULL, production_asked REAL, production_weight REAL NOT NULL,
        production_equity REAL NOT NULL, production_log_return REAL NOT NULL, deviation REAL,
        evidence REAL NOT NULL, against REAL NOT NULL, {_WHEN},
        UNIQUE (session, agent, production_version, place, bar_time)) STRICT""",
    f"""CREATE TABLE shadow_ends ({_KEYS}, {_VERSUS}, production_sha256 TEXT NOT NULL,
        bundle_sha256 TEXT NOT NULL, place INTEGER NOT NULL, bar_time TEXT,
        verdict TEXT NOT NULL, bars INTEGER NOT NULL, evidence REAL NOT NULL,
        against REAL NOT NULL, reason TEXT NOT NULL, {_WHEN}) STRICT""",
)

# Decisions on unfinished bars.
_TIMER = (
    "ALTER TABLE bars ADD COLUMN row_time TEXT",
    "ALTER TABLE bars ADD COLUMN decide_seconds INTEGER NOT NULL DEFAULT 0",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _FIRST,
    _SECOND,
    _THIRD,
    _CLIPS_AND_RULES,
    _INTERVENTIONS,
    _SHADOWS,
    _TIMER,
)
SCHEMA_VERSION = len(MIGRATIONS)
_MAY_CHANGE = frozenset({"snapshots"})


def migrate(connection: sqlite3.Connection, version: int, upto: int = SCHEMA_VERSION) -> None:
    """Bring a database of ``version`` forward to ``upto``, in one transaction or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in MIGRATIONS[version:upto]:
            for statement in statements:
                connection.execute(statement)
        for trigger in _append_only(connection):
            connection.execute(trigger)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {upto}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.execute("ROLLBACK")
        raise


def _append_only(connection: sqlite3.Connection) -> list[str]:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return [
        f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        for (table,) in tables
        if table not in _MAY_CHANGE and not table.startswith("sqlite_")
        for verb in ("UPDATE", "DELETE")
    ]
