"""Checks: what Great Expectations is asked of a bar frame, and what it found.

Owns the expectations and their names. A *row check* names rows to take out; a *dataset check*
judges the whole. Knows nothing of files or of what follows from a failure.
"""

import logging
import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from core import calendar
from core.bars import BAR_COLUMNS
from core.settings import Interval, Validation

PRICES = ("open", "high", "low", "close")
USUAL_VOLUME_BARS = 20
FEW_ROWS = 3  # reported by name


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation and what came of it."""

    name: str
    passed: bool
    found: str
    limit: str
    rows: tuple[int, ...] = ()  # positions that failed a row check


def examine(
    bars: pd.DataFrame, interval: Interval, settings: Validation, now: datetime
) -> list[Check]:
    """Return every check of ``bars`` (T rows), row checks first."""
    looked_at = _measured(bars, interval, settings, now)
    return [
        *_row_checks(looked_at, settings),
        *_dataset_checks(bars, looked_at, interval, settings),
    ]


def _measured(
    bars: pd.DataFrame, interval: Interval, settings: Validation, now: datetime
) -> pd.DataFrame:
    """Return the bars with one column per question that a plain comparison can answer."""
    table = bars.reset_index(drop=True)
    close = table["close"].where(table["close"] > 0)
    worth = close * table["split_ratio"] + table["dividend"]
    jump = (worth / close.shift(1)).apply(np.log).abs()
    usual = table["volume"].rolling(USUAL_VOLUME_BARS, min_periods=1).median().shift(1)
    news = table["volume"] > settings.jump_volume * usual / table["split_ratio"].clip(upper=1.0)
    table["jump"] = jump.where(~news, 0.0).fillna(0.0)
    still = (table["close"] == table["close"].shift(1)) & (table["volume"] == 0)
    table["stale_run"] = still.groupby((~still).cumsum()).cumsum()
    table["body_high"] = table[["open", "close"]].max(axis=1)
    table["body_low"] = table[["open", "close"]].min(axis=1)
    table["from_future"] = (bars.index > pd.Timestamp(now)).astype(int)
    expected = calendar.expected_bars(settings.calendar, interval, bars.index[0], bars.index[-1])
    table["off_calendar"] = (~bars.index.isin(expected)).astype(int)
    newest = bars.index[-1].to_pydatetime()
    partial = calendar.is_partial(settings.calendar, interval, newest, now)
    table["partial"] = 0
    table.loc[len(table) - 1, "partial"] = int(partial)
    return table


def _row_checks(table: pd.DataFrame, settings: Validation) -> list[Check]:
    import great_expectations.expectations as gxe

    at_least = gxe.ExpectColumnPairValuesAToBeGreaterThanB
    asked: list[tuple[str, str, Any]] = [
        *(
            (f"{name} is a number", "no NaN", gxe.ExpectColumnValuesToNotBeNull(column=name))
            for name in BAR_COLUMNS
        ),
        *(
            (f"{name} is positive", "> 0", _between(name, 0.0, None, strict=True))
            for name in (*PRICES, "split_ratio")
        ),
        *(
            (f"{name} is not negative", "≥ 0", _between(name, 0.0))
            for name in ("volume", "dividend")
        ),
        (
            "high is the highest",
            "high ≥ open, close",
            at_least(column_A="high", column_B="body_high", or_equal=True),
        ),
        (
            "low is the lowest",
            "low ≤ open, close",
            at_least(column_A="body_low", column_B="low", or_equal=True),
        ),
        ("not from the future", "time ≤ now", _between("from_future", None, 0)),
        ("the exchange was open", settings.calendar, _between("off_calendar", None, 0)),
        ("the bar is complete", "session closed", _between("partial", None, 0)),
        (
            "jumps have a cause",
            f"|log return| ≤ {settings.max_jump:g} unless a split, a dividend or "
            f"{settings.jump_volume:g}× the usual volume explains it",
            _between("jump", None, settings.max_jump),
        ),
        (
            "prices move",
            f"at most {settings.max_stale_bars} bars without change or volume",
            _between("stale_run", None, settings.max_stale_bars),
        ),
    ]
    results = _validate(table, [expectation for _, _, expectation in asked])
    return [
        _row_check(name, limit, result)
        for (name, limit, _), result in zip(asked, results, strict=True)
    ]


def _dataset_checks(
    bars: pd.DataFrame, table: pd.DataFrame, interval: Interval, settings: Validation
) -> list[Check]:
    expected = calendar.expected_bars(settings.calendar, interval, bars.index[0], bars.index[-1])
    absent = expected.difference(pd.DatetimeIndex(bars.index))
    stale_open = (table["open"] == table["close"].shift(1)).groupby(
        pd.DatetimeIndex(bars.index).year.to_numpy()
    )
    by_year = stale_open.mean()
    measured = pd.DataFrame(
        {
            "missing": [len(absent) / max(len(expected), 1)],
            "stale_opens": [float(by_year.max())],
            "repeated": [int(bars.index.duplicated().sum())],
        }
    )
    limits = {
        "missing": settings.max_missing_sessions,
        "stale_opens": settings.max_stale_opens,
        "repeated": 0,
    }
    results = _validate(measured, [_between(name, None, top) for name, top in limits.items()])
    shown = ", ".join(str(time.date()) for time in absent[:FEW_ROWS])
    return [
        Check(
            "bars are complete",
            bool(results[0].success),
            f"{len(absent)} of {len(expected)} bars are missing"
            + (f" ({measured['missing'][0]:.1%}; first: {shown})" if len(absent) else ""),
            f"≤ {settings.max_missing_sessions:.1%}",
        ),
        Check(
            "opens are prices",
            bool(results[1].success),
            f"in {by_year.idxmax()} {by_year.max():.0%} of opens equal the previous close",
            f"≤ {settings.max_stale_opens:.0%} in any year; an index quote is not a price",
        ),
        Check("bars are unique", bool(results[2].success), f"{measured['repeated'][0]} twice", "0"),
    ]


def _between(
    column: str, low: float | None, high: float | None = None, strict: bool = False
) -> Any:
    import great_expectations.expectations as gxe

    return gxe.ExpectColumnValuesToBeBetween(
        column=column, min_value=low, max_value=high, strict_min=strict
    )


def _validate(table: pd.DataFrame, expectations: list[Any]) -> list[Any]:
    """Let Great Expectations validate ``table``, in memory; results in the order asked."""
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        import great_expectations as gx

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("bars").add_dataframe_asset("bars")
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})
        found = [
            batch.validate(expectation, result_format={"result_format": "COMPLETE"})
            for expectation in expectations
        ]
    return found


def _row_check(name: str, limit: str, result: Any) -> Check:
    rows = tuple(int(row) for row in result.result.get("unexpected_index_list") or ())
    return Check(
        name, bool(result.success), f"{len(rows)} bars" if rows else "all bars", limit, rows
    )
