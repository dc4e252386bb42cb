"""A session of an agent with a decision timer as a dataset: one row per decision.

Owns the joining of the validated bars before the session with what the session heard, part by part,
and the features of each bar as it stood at its decision. Reads no recorded observation.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd

from core.bars import BAR_COLUMNS, RISK_COLUMNS, Market
from core.home import Home
from core.settings import Params
from features.dataset import Dataset
from features.spec import FeatureSpec
from features.table import build_row, build_table, newest_risk, newest_row, vix_before
from pipelines.featurize import validated_bars, vix_closes
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
) -> tuple[Dataset, np.ndarray]:
    """Return the parts that ``agent`` decided on (at ``times``), and what it saw at each end.

    What it looked back on, unscaled (decisions, rows, columns), newest last, is told beside the
    dataset, whose rows are decisions and not bars. Raises ``DataError`` where validated bars, or
    those of a VIX that is looked at, are missing.
    """
    entry = params.agent(agent)
    traded, seen = _parts(home, params, agent, heard, entry.symbol)
    if entry.signal_symbol == entry.symbol:
        signal, looked = traded, seen
    else:
        signal, looked = _parts(home, params, agent, heard, entry.signal_symbol)
    vix = vix_closes(home) if spec.uses_vix else None
    market, looks, look = [], [], _Look(signal, traded, spec, vix)
    recorded = {bar.bar_time: bar for bar in heard if bar.symbol == entry.symbol}
    for time in times:
        _grow(traded, seen, time)
        if signal is not traded:
            _grow(signal, looked, time)
        risk = newest_risk(traded.prices(spec.anchor), spec.interval)
        prices = [getattr(recorded[time], name) for name in BAR_COLUMNS]
        market.append([*prices, *risk])
        looks.append(look.now())
    index = pd.DatetimeIndex(list(times), name="time").as_unit("ns")
    frame = pd.DataFrame(market, index=index, columns=list(BAR_COLUMNS + RISK_COLUMNS))
    bars = Market.from_frames({entry.symbol: frame})
    seen_at = np.array(looks)
    alone = replace(spec, window=1, scaler="zscore", rolling_window=0)  # each row has its own past
    of = entry.symbol, entry.signal_symbol, bars, seen_at[:, -1], alone
    return Dataset.of(*of), seen_at


class _Look:
    """The feature rows that an observation at this moment is made of."""

    def __init__(
        self, signal: History, traded: History, spec: FeatureSpec, vix: pd.Series | None
    ) -> None:
        self._signal, self._traded, self._spec, self._vix = signal, traded, spec, vix
        self._of: datetime | None = None  # the bar that ``_before`` comes before
        self._before = np.empty((0, len(spec.columns)))

    def now(self) -> np.ndarray:
        """Return (look-back + 1, columns), newest last."""
        spec, newest = self._spec, self._newest()
        if spec.look_back_rows and self._of != self._signal.newest_row:
            self._of = self._signal.newest_row
            table = build_table(self._signal.frame(), spec, spec.interval, self._vix)
            shared = table.loc[table.index.isin(self._traded.frame().index)].to_numpy()
            self._before = shared[:-1][-spec.look_back_rows :]
        return np.vstack([self._before, newest])

    def _newest(self) -> np.ndarray:
        spec, signal, grows = self._spec, self._signal, self._signal.newest_row
        if not spec.uses_vix or grows is None:
            return newest_row(signal.prices(spec.anchor), spec)
        bars, vix = signal.since_anchor(spec.anchor), vix_before(self._vix, grows)
        return build_row(bars, spec, spec.interval, vix)


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
