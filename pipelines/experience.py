"""Experience: what an agent lived through while trading, merged with history for its retraining.

Owns the merged table, the comparison of what was seen live with what the store says of the same
bars, the measured slippage, and the transitions that an off-policy learner may begin with. Reads
the ledger; training gets plain arrays and never knows where they come from.

PPO learns from what its present policy does (on-policy), so live decisions of earlier versions
would bias it: it gets none. SAC learns from any behaviour: transitions inside its training rows are
where its replay begins. Where an agent learns on another symbol than it trades (``train_on``) its
rewards are those of another market, and none are used.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.home import Home
from core.settings import Params
from features.account import ACCOUNT_COLUMNS
from features.dataset import Dataset
from serving.ledger import LedgerReader, experience, rows
from sources.files import parquet_bytes, write_whole
from training.rewards import Moments
from training.transitions import Transitions

HISTORY, LIVE = "history", "live"
PRICE_TOLERANCE = 1e-6  # relative: vendors deliver float32 now and then
ENDED = "HALTED"


@dataclass(frozen=True, slots=True)
class Experience:
    """One agent's history and life, merged, and what the comparison of both came to."""

    # By `time`: price volume features… sentiment action reward live_price session known (by the
    # history) provenance (live where the agent was there).
    merged: pd.DataFrame
    live_bars: int
    unknown_bars: int  # of them the dataset does not have (yet)
    differing_prices: int  # live closes that are not what the store says
    worst_price: str  # where the largest difference is; "" without one
    fills: int  # at the open, whose slippage was measured
    slippage_bps: float  # measured, against the open, weighted by value; NaN without fills
    transitions: Transitions

    def __str__(self) -> str:
        odd = f"; {self.differing_prices} prices differ, the worst at {self.worst_price}"
        cost = f"; slippage {self.slippage_bps:.2f} bps over {self.fills} fills"
        return (
            f"{self.live_bars} bars traded, {self.unknown_bars} of them not in the dataset yet"
            f"{odd if self.differing_prices else ''}{cost if self.fills else ''}"
        )

    def figures(self, assumed_bps: float) -> dict[str, Any]:
        """Return what goes into the record of a run."""
        return {
            "live_bars": self.live_bars,
            "unknown_bars": self.unknown_bars,
            "differing_prices": self.differing_prices,
            "worst_price": self.worst_price,
            "fills": self.fills,
            "measured_slippage_bps": None if math.isnan(self.slippage_bps) else self.slippage_bps,
            "assumed_slippage_bps": assumed_bps,
        }


def gather(home: Home, params: Params, agent: str, traded: Dataset) -> Experience:
    """Merge every session of ``agent`` with the bars and features of ``traded``.

    Without a ledger this is the history alone. Raises ``StorageError`` where the ledger cannot be
    read.
    """
    lives: list[_Life] = []
    if home.ledger.exists():
        with LedgerReader(home.ledger) as ledger:
            sessions = [found.session for found in ledger.rows(rows.Session)]
            lives = [_life(home.ledger, ledger, agent, session, traded) for session in sessions]
    lives = [life for life in lives if len(life.frame)]
    merged = merge(history_of(traded), [(life.session, life.frame) for life in lives])
    differing, worst = _compare(merged)
    value = sum(life.value for life in lives)
    entry = params.agent(agent)
    learns_elsewhere = entry.signal_symbol != entry.symbol
    parts = [] if learns_elsewhere else [_transitions(life, traded) for life in lives]
    return Experience(
        merged=merged,
        live_bars=int((merged["provenance"] == LIVE).sum()),
        unknown_bars=int((~merged["known"]).sum()),
        differing_prices=differing,
        worst_price=worst,
        fills=sum(life.fills for life in lives),
        slippage_bps=1e4 * sum(life.lost for life in lives) / value if value else math.nan,
        transitions=Transitions.joined(parts, len(ACCOUNT_COLUMNS)),
    )


def write(home: Home, agent: str, found: Experience) -> tuple[Path, str]:
    """Write the merged table under ``Home.experience``; return path and sha256."""
    path, content = home.experience / f"{agent}.parquet", parquet_bytes(found.merged)
    write_whole(path, content)
    return path, hashlib.sha256(content).hexdigest()


def history_of(traded: Dataset) -> pd.DataFrame:
    """Return price, volume and unscaled features of a dataset, by `time`."""
    time = pd.DatetimeIndex(traded.market.time, tz="UTC", name="time")
    table = pd.DataFrame(traded.table, index=time, columns=list(traded.spec.columns))
    table.insert(0, "price", traded.market.close[:, 0])
    table.insert(1, "volume", traded.market.volume[:, 0])
    return table


def merge(history: pd.DataFrame, sessions: Sequence[tuple[int, pd.DataFrame]]) -> pd.DataFrame:
    """Join history with what was lived through in ``sessions`` (as ``experience`` returns it).

    One row per bar time: of sessions that saw the same bar the newest counts. Features are those of
    the history, which live rows equal byte for byte; a live bar that history lacks has none.
    """
    seen = [
        pd.DataFrame(
            {
                "action": frame["action"],
                "reward": frame["reward"],
                "live_price": frame["price"],
                "live_volume": frame["volume"],
                "session": float(session),
            }
        )
        for session, frame in sorted(sessions, key=lambda pair: pair[0])
    ]
    columns = ["action", "reward", "live_price", "live_volume", "session"]
    empty = pd.DataFrame(columns=columns, index=history.index[:0], dtype=np.float64)
    live = pd.concat(seen) if seen else empty
    live = live[~live.index.duplicated(keep="last")].sort_index()
    merged = history.join(live, how="outer")
    if "sentiment" not in merged:
        merged.insert(history.shape[1], "sentiment", np.nan)
    merged["known"] = merged["price"].notna()
    merged["price"] = merged["price"].fillna(merged["live_price"])
    merged["volume"] = merged["volume"].fillna(merged.pop("live_volume"))
    merged["provenance"] = np.where(merged["session"].notna(), LIVE, HISTORY)
    merged.index.name = "time"
    return merged


def _compare(merged: pd.DataFrame) -> tuple[int, str]:
    """Count live closes that differ from the stored ones; name the worst."""
    both = merged[merged["known"] & (merged["provenance"] == LIVE)]
    live, stored = both["live_price"].to_numpy(), both["price"].to_numpy()
    gap = np.abs(live / stored - 1.0)
    differing = int((gap > PRICE_TOLERANCE).sum())
    if not differing:
        return 0, ""
    worst = int(gap.argmax())
    when = pd.DatetimeIndex(both.index)[worst].isoformat()
    return differing, f"{when}: {live[worst]:.6g} live, {stored[worst]:.6g} stored"


@dataclass(frozen=True, slots=True)
class _Life:
    """One session of one agent."""

    session: int
    frame: pd.DataFrame  # as ``serving.ledger.experience`` returns it
    asked: np.ndarray  # (m,) target weights before risk, NaN: hold
    drawdown: np.ndarray  # (m,)
    ended: np.ndarray  # bool (m,): halted at this close
    fills: int
    lost: float  # to slippage at the open, account currency
    value: float  # traded at the open, account currency


def _life(path: Path, ledger: LedgerReader, agent: str, session: int, traded: Dataset) -> _Life:
    of: dict[str, Any] = {"session": session, "agent": agent, "symbol": traded.symbol}
    decisions = ledger.rows(rows.Decision, **of)
    books = {book.bar_time: book for book in ledger.rows(rows.Equity, **of)}
    seen = ledger.rows(rows.BarSeen, **of)
    if any(bar.decide_seconds for bar in seen):
        decisions = []  # made between closes: bars of another clock than the dataset's
    opens = {bar.bar_time: bar.open for bar in seen}
    entries = [
        fill
        for fill in ledger.rows(rows.Fill, **of)
        if fill.leg == "entry" and fill.bar_time in opens
    ]
    frame = experience(path, agent, session) if decisions else pd.DataFrame()
    if len(frame) != len(decisions):  # of an agent whose symbol changed within a session
        frame = frame.iloc[:0]
    return _Life(
        session=session,
        frame=frame,
        asked=np.array([decision.weight for decision in decisions]),
        drawdown=np.array([books[decision.bar_time].drawdown for decision in decisions]),
        ended=np.array([books[d.bar_time].risk_state == ENDED for d in decisions], bool),
        fills=len(entries),
        lost=sum(fill.shares * (fill.price - opens[fill.bar_time]) for fill in entries),
        value=sum(abs(fill.shares) * opens[fill.bar_time] for fill in entries),
    )


def _transitions(life: _Life, traded: Dataset) -> Transitions:
    """Return the decisions whose bar and the next are neighbours in the dataset, too."""
    time = pd.DatetimeIndex(traded.market.time, tz="UTC")
    row = time.get_indexer(life.frame.index)
    if not set(ACCOUNT_COLUMNS) <= set(life.frame.columns):
        return Transitions.joined([], len(ACCOUNT_COLUMNS))
    account = life.frame[list(ACCOUNT_COLUMNS)].to_numpy(np.float32)
    reward = life.frame["reward"].to_numpy(np.float64)
    moments, mean, mean_square = Moments(1), np.zeros(len(row)), np.zeros(len(row))
    for number, value in enumerate(reward[:-1]):
        mean[number], mean_square[number] = moments.mean[0], moments.mean_square[0]
        moments.update(np.array([value]), np.array([False]))
    # A hold has no place among continuous actions; what follows a halt is no decision.
    good = (row[:-1] >= 0) & (row[1:] == row[:-1] + 1)
    good &= np.isfinite(life.asked[:-1]) & np.isfinite(reward[:-1]) & ~life.ended[:-1]
    good &= np.isfinite(account[:-1]).all(axis=1) & np.isfinite(account[1:]).all(axis=1)
    return Transitions(
        row=row[:-1][good].astype(np.int64),
        account=account[:-1][good],
        next_account=account[1:][good],
        weight=life.asked[:-1][good],
        log_return=reward[:-1][good],
        drawdown=life.drawdown[1:][good],
        drawdown_before=life.drawdown[:-1][good],
        mean=mean[:-1][good],
        mean_square=mean_square[:-1][good],
        alive=~life.ended[1:][good],
    )
