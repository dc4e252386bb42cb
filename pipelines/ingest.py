"""Ingest: fetch the bars of one symbol, pass the gate, append, renew the manifest.

Owns the order of these steps. What the gate refuses reaches neither store nor manifest, so the
last good dataset stays in place.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pandas as pd

from core.calendar import is_partial
from core.errors import BadBars
from core.home import Home
from core.settings import Interval, Params, Source, check_symbol
from sources import store
from sources.catalogue import make_source
from sources.manifest import Manifest, dataset_name, enlist
from sources.port import Delivery, as_traded


@dataclass(frozen=True, slots=True)
class Ingested:
    """What one ingest did; as text, one line for a person."""

    symbol: str
    source: str
    interval: str
    new_rows: int
    restated_rows: int
    quarantined_rows: int
    rows: int  # of the dataset now
    first: datetime
    last: datetime

    def __str__(self) -> str:
        news = f"{self.new_rows} new bars" if self.new_rows else "nothing new"
        restated = f", {self.restated_rows} restated" if self.restated_rows else ""
        odd = f", {self.quarantined_rows} quarantined" if self.quarantined_rows else ""
        span = f"{self.first:%Y-%m-%d} to {self.last:%Y-%m-%d}"
        return (
            f"{self.symbol} {self.interval} from {self.source}: {news}{restated}{odd}; "
            f"{self.rows} bars, {span}"
        )


def run(
    home: Home,
    params: Params,
    symbol: str,
    source: Source = "bundled",
    interval: Interval = "1d",
    path: Path | None = None,
    *,
    now: datetime,
) -> Ingested:
    """Bring one symbol up to ``now``; raise what source, gate or store refuse with.

    The whole history is asked for each time: only so is a vendor's changed past noticed.
    """
    from pipelines import validate

    check_symbol(symbol)
    delivery = make_source(source, path).fetch(symbol, interval, None, now)
    delivery = _complete(delivery, params.validation.calendar, now)
    offered = as_traded(delivery.frame, delivery.convention)
    judged = validate.judge(
        offered, dataset_name(symbol, interval), interval, params.validation, now
    )
    if judged.failures:
        judged.require(validate.write_report(home, judged))
    added = store.append(home, source, delivery)
    bars = store.read(home, source, symbol, interval)
    enlist(home, Manifest.of(symbol, source, interval, bars))
    return Ingested(
        symbol=symbol,
        source=source,
        interval=interval,
        new_rows=added.new_rows,
        restated_rows=added.restated_rows,
        quarantined_rows=len(judged.quarantined),
        rows=len(bars),
        first=bars.index[0].to_pydatetime(),
        last=bars.index[-1].to_pydatetime(),
    )


def _complete(delivery: Delivery, calendar: str, now: datetime) -> Delivery:
    """Leave out the newest bar while it is still being made."""
    frame: pd.DataFrame = delivery.frame
    if frame.empty:
        raise BadBars(f"{delivery.symbol}: the source delivered no bars at all")
    if is_partial(calendar, delivery.interval, frame.index[-1].to_pydatetime(), now):  # type: ignore[arg-type]
        return replace(delivery, frame=frame.iloc[:-1])
    return delivery
