"""Briefing: bars and histories on their way from the gateway to an agent's process.

Owns how they are written as JSON and read again, bit for bit: Python writes the shortest decimal
that gives the same float back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from core.bars import BAR_COLUMNS
from serving.history import FeedBar, History, Instrument


def of_bars(bars: Sequence[FeedBar]) -> dict[str, Any]:
    return {
        "bars": [
            [astuple(b.instrument), b.time.isoformat(), b.row and b.row.isoformat(), *b.values]
            for b in bars
        ]
    }


def bars_of(content: Mapping[str, Any]) -> list[FeedBar]:
    return [
        FeedBar(
            Instrument(*instrument),
            datetime.fromisoformat(time),
            tuple(values),
            datetime.fromisoformat(row) if row else None,
        )
        for instrument, time, row, *values in content["bars"]
    ]


def of_history(history: History) -> dict[str, Any]:
    frame = history.frame()
    return {
        "instrument": astuple(history.instrument),
        "newest_part": history.newest_part and history.newest_part.isoformat(),
        "forgotten": history.forgotten and history.forgotten.isoformat(),
        "times": _nanoseconds(frame.index),
        "values": frame.to_numpy().tolist(),
    }


def history_of(content: Mapping[str, Any]) -> History:
    index = pd.DatetimeIndex(content["times"], name="time").tz_localize("UTC")
    values = content["values"] if content["times"] else None
    frame = pd.DataFrame(values, index=index, columns=list(BAR_COLUMNS), dtype="float64")
    newest_part, forgotten = (
        datetime.fromisoformat(content[name]) if content[name] else None
        for name in ("newest_part", "forgotten")
    )
    return History(Instrument(*content["instrument"]), frame, newest_part, forgotten)


def of_series(series: pd.Series | None) -> dict[str, Any]:
    if series is None:
        return {"times": None, "values": None}
    return {"times": _nanoseconds(series.index), "values": series.tolist()}


def series_of(content: Mapping[str, Any]) -> pd.Series | None:
    if content["times"] is None:
        return None
    index = pd.DatetimeIndex(content["times"]).tz_localize("UTC")
    return pd.Series(content["values"], index=index, dtype="float64")


def _nanoseconds(index: "pd.Index[Any]") -> list[int]:
    times: list[int] = index.to_numpy("datetime64[ns]").astype(np.int64).tolist()
    return times
