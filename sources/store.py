"""The store: raw bars and corporate actions as delivered, append-only, adjusted on read.

Owns the Parquet segments under ``Home.store/<source>/<symbol>/<interval>/``. A segment,
named by its number and hash, holds what one delivery added: rows that were new, and rows in which
the vendor changed its past (a *restatement*). Nothing is ever rewritten; a read takes the newest
vintage of each bar, or the one known at an earlier time. Knows neither vendors nor what the bars
are for.

A vendor that adjusts for splits restates every earlier price with each new split. That is its
convention, not news: rows are compared as traded, so only a change of the tape itself counts.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from core.bars import BAR_COLUMNS
from core.errors import CorruptFile, NotEnoughData
from core.home import Home
from sources.catalogue import ingest_command
from sources.files import locked, parquet_bytes, read_parquet, write_whole
from sources.port import Convention, Delivery, as_traded, symbol_name

EXACT = 1e-9  # relative: what a vendor that quotes as traded may differ by
# Relative, after undoing adjustments: such vendors divide in float32, and round what they divide.
ADJUSTED = {"volume": 1e-3, "dividend": 1e-3}
ADJUSTED_PRICE = 1e-5


@dataclass(frozen=True, slots=True)
class Appended:
    """What one delivery added to the store."""

    new_rows: int
    restated_rows: int
    segment: Path | None  # None: nothing was new


def append(home: Home, source: str, delivery: Delivery) -> Appended:
    """Add what ``delivery`` knows and the store does not; all of it or nothing.

    Raises ``DiskFull`` or ``StorageError`` (nothing was written) or ``CorruptFile``.
    """
    folder = _folder(home, source, delivery.symbol, delivery.interval)
    with locked(folder):
        known = _newest(folder, None)
        offered = as_traded(delivery.frame, delivery.convention)
        fresh = ~offered.index.isin(known.index)
        changed = _changed(known, offered, delivery.convention)
        added = delivery.frame[fresh | changed]
        if added.empty:
            return Appended(0, 0, None)
        segments = _segments(folder)
        number = int(segments[-1].stem.partition("-")[0]) + 1 if segments else 0
        content = parquet_bytes(added, _described(delivery))
        path = folder / f"{number:06d}-{_digest(content)}.parquet"
        write_whole(path, content)
        return Appended(int(fresh.sum()), int(changed.sum()), path)


def read(
    home: Home, source: str, symbol: str, interval: str, as_of: datetime | None = None
) -> pd.DataFrame:
    """Return the bar frame as traded, as it was known at ``as_of`` (newest by default).

    Raises ``NotEnoughData`` where nothing was ingested, ``CorruptFile`` naming the segment.
    """
    bars = _newest(_folder(home, source, symbol, interval), as_of)
    if bars.empty:
        raise NotEnoughData(
            f"{symbol} ({interval}, {source}): the store {home.store} has no bars"
            f"{f' as of {as_of.isoformat()}' if as_of else ''}; run "
            f"{ingest_command(symbol, source, interval)}"
        )
    return bars


def vintages(home: Home, source: str, symbol: str, interval: str) -> list[datetime]:
    """Return when each segment was delivered, oldest first."""
    folder = _folder(home, source, symbol, interval)
    return [_delivered_at(_segment(path)[1]) for path in _segments(folder)]


def _folder(home: Home, source: str, symbol: str, interval: str) -> Path:
    return home.store / source / symbol_name(symbol) / interval


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.parquet"))


def _segment(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read one segment; raise ``CorruptFile`` unless it is to the bit what was written."""
    found = read_parquet(path)
    if _digest(path.read_bytes()) != path.stem.partition("-")[2]:
        raise CorruptFile(
            f"{path}: has changed since it was written; restore it from a backup, or delete it and "
            "ingest again"
        )
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _newest(folder: Path, as_of: datetime | None) -> pd.DataFrame:
    """Return the newest vintage of every bar, as traded and in order."""
    vintages = []
    for path in _segments(folder):
        frame, metadata = _segment(path)
        if as_of is not None and _delivered_at(metadata) > as_of:
            continue
        splits = pd.Series(json.loads(metadata["splits"]), dtype=np.float64)
        splits.index = pd.to_datetime(splits.index, utc=True)
        convention: Convention = metadata["convention"]  # type: ignore[assignment]
        vintages.append(as_traded(frame, convention, splits))
    if not vintages:
        empty = pd.DatetimeIndex([], dtype="datetime64[ns, UTC]", name="time")
        return pd.DataFrame(columns=list(BAR_COLUMNS), index=empty, dtype=np.float64)
    together = pd.concat(vintages)
    return together[~together.index.duplicated(keep="last")].sort_index()


def _changed(known: pd.DataFrame, offered: pd.DataFrame, convention: Convention) -> np.ndarray:
    """Tell which offered rows are in the store with other numbers, (rows,) bool."""
    changed = np.zeros(len(offered), dtype=bool)
    both = offered.index.isin(known.index)
    old = known.loc[offered.index[both]].to_numpy()
    new = offered[both].to_numpy()
    tolerance: float | np.ndarray = EXACT
    if convention == "split_adjusted":
        tolerance = np.array([ADJUSTED.get(name, ADJUSTED_PRICE) for name in BAR_COLUMNS])
    same = np.isclose(new, old, rtol=tolerance, atol=1e-9, equal_nan=True)
    changed[both] = ~same.all(axis=1)
    return changed


def _described(delivery: Delivery) -> dict[str, str]:
    ratios = delivery.frame["split_ratio"]
    split = ratios[ratios != 1.0]
    splits = dict(zip(split.index.map(pd.Timestamp.isoformat), split.tolist(), strict=True))
    return {
        "symbol": delivery.symbol,
        "interval": delivery.interval,
        "convention": delivery.convention,
        "delivered_at": delivery.delivered_at.astimezone(UTC).isoformat(),
        "splits": json.dumps(splits),
    }


def _delivered_at(metadata: dict[str, str]) -> datetime:
    return datetime.fromisoformat(metadata["delivered_at"])
