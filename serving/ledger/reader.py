"""The ledger as everybody else sees it: read-only rows, lineage, and experience for retraining.

Owns questions to the ledger. Never waits for the writer, never changes anything.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from core.errors import ConfigError, StorageError
from serving.ledger.database import open_reader, renamed
from serving.ledger.rows import (
    BarSeen,
    Decision,
    Equity,
    Event,
    Fill,
    Model,
    Order,
    Row,
    RowType,
    Session,
    Verdict,
    columns_of,
    iso,
    rows_of,
)

VIEWS: Mapping[str, type[Row]] = {
    "decisions": Decision,
    "verdicts": Verdict,
    "orders": Order,
    "fills": Fill,
    "equity": Equity,
    "events": Event,
    "sessions": Session,
}


class Reading:
    """Typed reading over one connection."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def rows(
        self,
        row_type: type[RowType],
        *,
        after: datetime | None = None,
        newest: int | None = None,
        **equals: Any,
    ) -> list[RowType]:
        """Return rows in the order they were written.

        ``equals`` filters by column, ``after`` by bar time (excluded); ``newest`` keeps that many.
        """
        known = columns_of(row_type)
        if unknown := sorted(set(equals) - set(known)):
            raise StorageError(f"{row_type.TABLE} has no column {unknown[0]!r}")
        conditions = [f"{name} = ?" for name in equals]
        values = [iso(v) if isinstance(v, datetime) else v for v in equals.values()]
        if after is not None:
            conditions.append("bar_time > ?")
            values.append(iso(after))
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        limit = f" DESC LIMIT {int(newest)}" if newest is not None else ""
        sql = f"SELECT {', '.join(known)} FROM {row_type.TABLE}{where} ORDER BY id{limit}"
        try:
            found = self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise renamed(error, self.path) from error
        return rows_of(row_type, reversed(found) if newest else found)

    def newest_session(self) -> int | None:
        """Return the number of the session opened last."""
        found = self.rows(Session, newest=1)
        return found[0].session if found else None


class LedgerReader(Reading):
    """The ledger, read-only; use as a context manager."""

    def __init__(self, path: Path) -> None:
        super().__init__(open_reader(path), path)


def read(
    path: Path,
    view: str,
    *,
    agent: str | None = None,
    session: int | None = None,
    newest: int | None = None,
) -> list[Row]:
    """Return the rows of one of ``VIEWS``: of the newest session unless one is named.

    Sessions are listed whole.
    """
    if view not in VIEWS:
        raise ConfigError(f"the ledger has no {view!r}; it has: {', '.join(VIEWS)}")
    with LedgerReader(path) as ledger:
        if VIEWS[view] is Session:
            named: dict[str, Any] = {} if session is None else {"session": session}
            return list(ledger.rows(Session, newest=newest, **named))
        chosen = session if session is not None else ledger.newest_session()
        if chosen is None:
            return []
        equals: dict[str, Any] = {"session": chosen} | ({"agent": agent} if agent else {})
        return list(ledger.rows(VIEWS[view], newest=newest, **equals))


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where an order came from, down to the data and code behind its model."""

    order: Order
    fills: tuple[Fill, ...]
    decision: Decision
    verdict: Verdict
    features: dict[str, float]  # the observation, by column
    model_version: str
    bundle_sha256: str
    trial: int | None
    seed: int
    dataset_sha256: str
    commit: str


def lineage(path: Path, order_ref: str) -> Lineage:
    """Trace an order to decision, features, model version, trial, dataset hash and commit."""
    with LedgerReader(path) as ledger:
        orders = ledger.rows(Order, order_ref=order_ref)
        if not orders:
            raise StorageError(
                f"{path}: no order {order_ref!r} in the ledger; `ratchet ledger orders` lists them"
            )
        order = orders[0]
        of: dict[str, Any] = {"session": order.session, "agent": order.agent}
        key = of | {"bar_time": order.bar_time}
        decision = ledger.rows(Decision, **key)[0]
        model = ledger.rows(
            Model,
            **of,
            model_version=decision.model_version,
            bundle_sha256=decision.bundle_sha256,
        )[0]
        return Lineage(
            order=order,
            fills=tuple(ledger.rows(Fill, order_ref=order_ref)),
            decision=decision,
            verdict=ledger.rows(Verdict, **key)[0],
            features=_named(model, decision),
            model_version=decision.model_version,
            bundle_sha256=decision.bundle_sha256,
            trial=model.card.get("trial"),
            seed=int(model.card["seed"]),
            dataset_sha256=str(model.card["dataset_sha256"]),
            commit=str(model.card["commit"]),
        )


def experience(path: Path, agent: str, session: int | None = None) -> pd.DataFrame:
    """Return what an agent lived through, for merging with history before it is retrained.

    Index ``timestamp`` (UTC); columns price, volume, one per number of the observation,
    sentiment (NaN where the observation has none), action (target weight held after risk, NaN:
    hold), reward (log return of the sleeve's equity over the following bar; NaN for the last).
    Where the feature spec changed, columns one spec lacks are NaN.
    """
    with LedgerReader(path) as ledger:
        chosen = session if session is not None else ledger.newest_session()
        key: dict[str, Any] = {"session": chosen, "agent": agent}
        models = {m.bundle_sha256: m for m in ledger.rows(Model, **key)}
        decisions = ledger.rows(Decision, **key)
        allowed = {v.bar_time: v.allowed for v in ledger.rows(Verdict, **key)}
        books = {e.bar_time: e.equity for e in ledger.rows(Equity, **key)}
        volume = {(b.bar_time, b.symbol): (b.close, b.volume) for b in ledger.rows(BarSeen, **key)}
    records = []
    for decision in decisions:
        price, traded = volume[decision.bar_time, decision.symbol]
        record: dict[str, Any] = {"timestamp": decision.bar_time, "price": price, "volume": traded}
        record |= _named(models[decision.bundle_sha256], decision)
        record.setdefault("sentiment", np.nan)
        records.append(record | {"action": allowed[decision.bar_time]})
    frame = pd.DataFrame.from_records(records)
    if frame.empty:
        return pd.DataFrame(columns=["price", "volume", "sentiment", "action", "reward"])
    frame = frame.set_index(pd.DatetimeIndex(frame.pop("timestamp"), name="timestamp"))
    equity = np.array([books[decision.bar_time] for decision in decisions])
    with np.errstate(divide="ignore", invalid="ignore"):
        frame["reward"] = np.append(np.diff(np.log(equity)), np.nan)
    return frame


def _named(model: Model, decision: Decision) -> dict[str, float]:
    if not decision.observation:  # an agent that did not answer
        return dict.fromkeys(model.observation_columns, np.nan)
    numbers = np.frombuffer(decision.observation, "<f4").astype(np.float64).tolist()
    return dict(zip(model.observation_columns, numbers, strict=True))
