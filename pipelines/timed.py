"""A session of an agent with a decision timer as a dataset: one row per decision.

Owns the joining of the validated bars before the session with what the session heard, part by part,
and the features of each bar as it stood at its decision. Reads no recorded observation.
"""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from core.bars import BAR_COLUMNS, RISK_COLUMNS, Market
from core.errors import ExecutionError
from core.home import Home
from core.settings import Params
from features.dataset import Dataset
from features.spec import FeatureSpec
from features.table import newest_risk, newest_row
from pipelines.featurize import validated_bars
from serving.history import FeedBar, History, Instrument
from serving.ledger import rows
from serving.timer import heard_bars
from sources.manifest import dataset_name


def timed_dataset(
    home: Home,
    params: Params,
    agent: str,
    heard: Sequence[rows.BarSeen],
    times: Sequence[datetime],
    spec: FeatureSpec,
) -> Dataset:
    """Return the parts that ``agent`` decided on (at ``times``), and what it saw at each end.

    Raises ``ExecutionError`` for a policy that looks back over rows, which a table of decisions
    does not hold, and ``DataError`` where validated bars are missing.
    """
    if spec.look_back_rows or spec.uses_vix:
        raise ExecutionError(
            f"{agent}: decisions on a timer are replayed for policies that see one row and no VIX; "
            f"this one looks back {spec.look_back_rows} rows; set environment.window to 1 and "
            "features.scaler to zscore"
        )
    entry = params.agent(agent)
    traded, seen = _parts(home, params, agent, heard, entry.symbol)
    if entry.signal_symbol == entry.symbol:
        signal, looked = traded, seen
    else:
        signal, looked = _parts(home, params, agent, heard, entry.signal_symbol)
    market, table = [], []
    recorded = {bar.bar_time: bar for bar in heard if bar.symbol == entry.symbol}
    for time in times:
        _grow(traded, seen, time)
        if signal is not traded:
            _grow(signal, looked, time)
        risk = newest_risk(traded.prices(spec.anchor), spec.interval)
        prices = [getattr(recorded[time], name) for name in BAR_COLUMNS]
        market.append([*prices, *risk])
        table.append(newest_row(signal.prices(spec.anchor), spec))
    index = pd.DatetimeIndex(list(times), name="time").as_unit("ns")
    frame = pd.DataFrame(market, index=index, columns=list(BAR_COLUMNS + RISK_COLUMNS))
    bars = Market.from_frames({entry.symbol: frame})
    return Dataset.of(entry.symbol, entry.signal_symbol, bars, np.array(table), spec)


def _parts(
    home: Home, params: Params, agent: str, heard: Sequence[rows.BarSeen], symbol: str
) -> tuple[History, list[FeedBar]]:
    """Return a symbol's history before the session, and what the session heard of it."""
    entry = params.agent(agent)
    one = Instrument(entry.source, symbol, entry.interval, entry.decide_seconds)
    parts = list(heard_bars(one, [bar for bar in heard if bar.symbol == symbol]))
    first = pd.Timestamp(parts[0].row or parts[0].time)
    whole = validated_bars(home, dataset_name(symbol, entry.interval), entry.source)
    return History(one, whole.loc[whole.index < first]), parts[::-1]


def _grow(history: History, parts: list[FeedBar], until: datetime) -> None:
    """Let a history hear everything up to a decision."""
    while parts and parts[-1].time <= until:
        history.append(parts.pop())
