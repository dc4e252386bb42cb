"""Parity: what was traded on paper, held against the backtest of the same bars.

Owns the comparison, sleeve by sleeve and exact: a difference of one bit is a difference. Reads the
ledger, runs nothing.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from serving.ledger import LedgerReader, rows
from training.backtest import BacktestResult

ANSWERED = frozenset({"observation", "score", "confidence"})  # what an answer says


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing in which paper and backtest are not the same."""

    agent: str
    bar_time: datetime
    what: str  # observation rsi_14, asked, equity …
    paper: Any
    backtest: Any

    def __str__(self) -> str:
        return (
            f"{self.agent} at {self.bar_time.isoformat()}: {self.what} is {self.paper!r} on paper "
            f"and {self.backtest!r} in the backtest"
        )


def first_difference(
    ledger_path: Path, agent: str, backtest: BacktestResult, session: int | None = None
) -> Difference | None:
    """Return the first of ``differences``, None where none is."""
    return next(differences(ledger_path, agent, backtest, session), None)


def differences(
    ledger_path: Path,
    agent: str,
    backtest: BacktestResult,
    session: int | None = None,
    unanswered: Collection[datetime] = (),
) -> Iterator[Difference]:
    """Yield the first difference of each bar of a sleeve's session from ``backtest``.

    Compares, bar by bar: the bar's time, observation, target asked and allowed, reasons, score,
    confidence, fills (shares, prices, commission of each leg) and equity. ``session``: the newest.
    ``unanswered``: bars at which nobody answered; what would have been is not compared there.
    """
    with LedgerReader(ledger_path) as ledger:
        chosen = session if session is not None else ledger.newest_session()
        of: dict[str, Any] = {"session": chosen, "agent": agent}
        columns = {one.model_version: one.observation_columns
                   for one in ledger.rows(rows.Model, **of)}  # fmt: skip
        decisions = ledger.rows(rows.Decision, **of)
        paper = _paper(
            decisions,
            ledger.rows(rows.Verdict, **of),
            ledger.rows(rows.Equity, **of),
            ledger.rows(rows.Fill, **of),
        )
    versions = [decision.model_version for decision in decisions]
    for version, ours, theirs in zip_longest(versions, paper, _offline(backtest)):
        if ours is None or theirs is None:
            time = (ours or theirs)["time"]
            yield Difference(agent, time, "the bar", ours and "there", theirs and "there")
            return
        silent = ours["time"] in unanswered and not ours["observation"]
        if found := _between(agent, columns[version], ours, theirs, ANSWERED if silent else ()):
            yield found


def _between(
    agent: str,
    columns: Sequence[str],
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    left_out: Collection[str],
) -> Difference | None:
    """Return the first difference at one bar."""
    for what in theirs:
        if what in left_out:
            continue
        if what == "observation" and ours[what] != theirs[what]:
            return _in_column(agent, theirs["time"], columns, ours[what], theirs[what])
        if not _same(ours[what], theirs[what]):
            return Difference(agent, theirs["time"], what, ours[what], theirs[what])
    return None


def _in_column(
    agent: str, time: datetime, columns: Sequence[str], ours: bytes, theirs: bytes
) -> Difference:
    """Name the first number of an observation that differs."""
    here, there = (np.frombuffer(content, "<f4") for content in (ours, theirs))
    if len(here) != len(there):
        return Difference(agent, time, "numbers in the observation", len(here), len(there))
    bits = here.view(np.int32) != there.view(np.int32)
    first = int(np.flatnonzero(bits)[0])
    what = f"observation {columns[first]}"
    return Difference(agent, time, what, float(here[first]), float(there[first]))


def _paper(
    decisions: Sequence[rows.Decision],
    verdicts: Sequence[rows.Verdict],
    books: Sequence[rows.Equity],
    fills: Sequence[rows.Fill],
) -> Iterator[dict[str, Any]]:
    for decision, verdict, book in zip(decisions, verdicts, books, strict=True):
        now = [fill for fill in fills if fill.bar_time == decision.bar_time]
        yield {
            "time": decision.bar_time,
            "observation": decision.observation,
            "asked": verdict.asked,
            "allowed": verdict.allowed,
            "reasons": verdict.reasons,
            "score": decision.score,
            "confidence": decision.confidence,
            "fills": sorted((fill.shares, fill.price) for fill in now),
            "commission": sum(fill.commission for fill in now),
            "equity": book.equity,
        }


def _offline(result: BacktestResult) -> Iterator[dict[str, Any]]:
    log = result.fills
    for row, time in enumerate(result.time):
        trades = (
            (float(log.open_shares[row, 0]), float(log.open_price[row, 0])),
            (float(log.exit_shares[row, 0]), float(log.exit_price[row, 0])),
        )
        yield {
            "time": pd.Timestamp(time, tz="UTC").to_pydatetime(),
            "observation": result.observations[row].astype("<f4").tobytes(),
            "asked": float(result.asked[row]),
            "allowed": float(result.allowed[row]),
            "reasons": int(result.reasons[row]),
            "score": float(result.score[row]),
            "confidence": float(result.confidence[row]),
            "fills": sorted((shares, price) for shares, price in trades if shares),
            "commission": float(log.commission[row, 0]),
            "equity": float(result.equity[row]),
        }


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and math.isnan(ours):
        return isinstance(theirs, float) and math.isnan(theirs)
    return bool(ours == theirs)
