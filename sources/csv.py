"""CSV: bars from a file of the user's own, read strictly.

Columns: ``Date`` (daily) or ``Datetime`` (intraday), ``Open High Low Close Volume``, and where the
file has them ``Adj Close``, ``Dividends``, ``Stock Splits``. UTF-8, one header line, oldest bar
first. Times without an offset are New York's. A file with a fault is refused whole, with file,
line and column: its owner can correct it, unlike a vendor.

Prices may be as traded or adjusted for splits: they show which, by what they do on a split's
ex-date. Without action columns, ``Adj Close`` tells splits and dividends.
"""

import difflib
import io
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from core.errors import BadBars
from sources.actions import actions_from_adjusted
from sources.port import Convention, Delivery

PRICES = ("Open", "High", "Low", "Close")
REQUIRED = (*PRICES, "Volume")
OPTIONAL = ("Adj Close", "Dividends", "Stock Splits")
LOCAL_TIME = "America/New_York"
DATE = r"\d{4}-\d{2}-\d{2}( 00:00:00.*)?"  # yfinance's own files have midnight and an offset


class CsvFile:
    """One file as a source; the symbol is whatever the caller says it is."""

    name = "csv"

    def __init__(self, path: Path) -> None:
        self.path = path

    def fetch(self, symbol: str, interval: str, since: datetime | None, now: datetime) -> Delivery:
        """Return the file's bars; raise ``BadBars`` naming file, line and column."""
        table = _parsed(self.path, _text(self.path))
        time = _times(self.path, table, interval, now)
        bars = _numbers(self.path, table).set_axis(time)
        _check_prices(self.path, bars)
        convention = _convention(self.path, bars)
        if since is not None:
            bars = bars[bars.index >= pd.Timestamp(since)]
        return Delivery(symbol, interval, bars, convention, now)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadBars(f"{path}: no such file") from None
    except OSError as error:
        raise BadBars(f"{path}: cannot be read ({error.strerror}); name a CSV file") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadBars(
            f"{path}: line {line} is not UTF-8 (byte 0x{content[error.start]:02x}); save the file "
            "as UTF-8"
        ) from None
    if not text.strip() or "\0" in text:
        found = "holds null bytes: save it as UTF-8 text" if text.strip("\0 \n") else "is empty"
        raise BadBars(f"{path}: {found}; expected a header line and one line per bar")
    return text


def _parsed(path: Path, text: str) -> pd.DataFrame:
    """Return the cells as text; row i of the table is line i + 2 of the file."""
    try:
        table = pd.read_csv(
            io.StringIO(text.rstrip() + "\n"),
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            index_col=False,
            on_bad_lines="error",
        )
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        told = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        raise BadBars(
            f"{path}: not a table of comma-separated cells ({told}); every line must have as many "
            "cells as the header"
        ) from None
    names = [str(name).strip() for name in table.columns]
    known = {name.lower(): name for name in ("Date", "Datetime", *REQUIRED, *OPTIONAL)}
    unknown = [name for name in names if name.lower() not in known]
    table.columns = pd.Index([known.get(name.lower(), name) for name in names])
    missing = [name for name in REQUIRED if name not in table]
    if not {"Date", "Datetime"} & set(table.columns):
        missing.insert(0, "Date")
    for absent in missing:
        near = difflib.get_close_matches(absent, unknown, n=1, cutoff=0.5)
        hint = f"rename `{near[0]}`" if near else f"it has {', '.join(names)}"
        raise BadBars(f"{path}: line 1: no column `{absent}`; {hint}")
    if unknown or table.columns.has_duplicates:
        wrong = unknown[0] if unknown else table.columns[table.columns.duplicated()][0]
        fault = "does not belong here" if unknown else "appears twice"
        raise BadBars(
            f"{path}: line 1: column `{wrong}` {fault}; known columns: {', '.join(known.values())}"
        )
    if table.empty:
        raise BadBars(f"{path}: has a header and no bars")
    return table


def _times(path: Path, table: pd.DataFrame, interval: str, now: datetime) -> pd.DatetimeIndex:
    column = "Date" if interval == "1d" else "Datetime"
    if column not in table:
        other = "Datetime" if column == "Date" else "Date"
        raise BadBars(
            f"{path}: line 1: bars of {interval} need a column `{column}`, found `{other}`; "
            "check --interval"
        )
    cells = table[column].str.strip()
    future = (
        cells.where(cells.str.match(r"\d{4}-\d{2}-\d{2}"), "").str.slice(0, 10) > f"{now:%Y-%m-%d}"
    )
    if column == "Date":
        cells = cells.where(cells.str.fullmatch(DATE), "").str.slice(0, 10)
        time = pd.to_datetime(cells, format="%Y-%m-%d", errors="coerce", utc=True)
    else:
        time = _aware(cells)
    future |= time > pd.Timestamp(now)
    _refuse(path, table, column, future, f"is later than now ({now:%Y-%m-%d}); remove the line")
    _refuse(
        path, table, column, time.isna(), "is no time such as 2024-01-31 or 2024-01-31 09:30:00"
    )
    _refuse(path, table, column, time.duplicated(), "appears twice; keep one line of it")
    _refuse(
        path, table, column, time.diff() < pd.Timedelta(0),
        "is earlier than the line before; sort the lines, oldest first",
    )  # fmt: skip
    return pd.DatetimeIndex(time, name="time").as_unit("ns")


def _aware(cells: "pd.Series[str]") -> "pd.Series[pd.Timestamp]":
    offset = cells.str.contains(r"(?:Z|[+-]\d{2}:?\d{2})$")
    given = pd.to_datetime(cells.where(offset, ""), format="ISO8601", errors="coerce", utc=True)
    naive = pd.to_datetime(cells.where(~offset, ""), format="ISO8601", errors="coerce")
    local = naive.dt.tz_localize(LOCAL_TIME, ambiguous="NaT", nonexistent="NaT")
    both: pd.Series[pd.Timestamp] = given.fillna(local.dt.tz_convert("UTC"))
    return both


def _numbers(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return BAR_COLUMNS (and ``adj_close`` where given) as numbers, all of them finite."""
    columns = {}
    for name in (*REQUIRED, *(name for name in OPTIONAL if name in table)):
        values = pd.to_numeric(table[name].str.strip(), errors="coerce").astype(np.float64)
        _refuse(path, table, name, ~np.isfinite(values), "is not a number")
        columns[name] = values
    bars = pd.DataFrame({name.lower(): columns[name] for name in REQUIRED})
    if "Adj Close" in columns:
        bars["adj_close"] = columns["Adj Close"]
        _refuse(path, table, "Adj Close", bars["adj_close"] <= 0, "must be above zero")
    if "Dividends" in columns or "Stock Splits" in columns:
        nothing = pd.Series(0.0, index=bars.index)
        bars["dividend"] = columns.get("Dividends", nothing)
        ratio = columns.get("Stock Splits", nothing)
        _refuse(path, table, "Dividends", bars["dividend"] < 0, "is negative")
        _refuse(path, table, "Stock Splits", ratio < 0, "is negative")
        bars["split_ratio"] = ratio.where(ratio > 0, 1.0)
    elif "adj_close" in bars:
        decimals = int(table["Adj Close"].str.strip().str.partition(".")[2].str.len().max())
        bars = actions_from_adjusted(bars, reinvested="close_before", decimals=decimals)
    else:
        bars = bars.assign(dividend=0.0, split_ratio=1.0)
    return bars


def _check_prices(path: Path, bars: pd.DataFrame) -> None:
    for name in PRICES:
        _refuse(path, bars, name.lower(), bars[name.lower()] <= 0, "must be above zero")
    _refuse(path, bars, "volume", bars["volume"] < 0, "is negative")
    _refuse(path, bars, "high", bars["high"] < bars["low"], "is below the low")
    for name in ("open", "close"):
        _refuse(path, bars, name, bars[name] > bars["high"], "is above the high")
        _refuse(path, bars, name, bars[name] < bars["low"], "is below the low")


def _convention(path: Path, bars: pd.DataFrame) -> Convention:
    """Tell by the opens on split dates whether prices are as traded or split-adjusted."""
    ratio = np.log(bars["split_ratio"].to_numpy())
    moved = np.log(bars["open"].to_numpy()[1:] / bars["close"].to_numpy()[:-1])
    split = ratio[1:] != 0.0
    as_it_was = np.abs(moved + ratio[1:]) < np.abs(moved)  # as traded, a 2:1 split halves the price
    if as_it_was[split].all():
        return "as_traded"
    if not as_it_was[split].any():
        return "split_adjusted"
    row = int(np.flatnonzero(split & ~as_it_was)[0]) + 1
    raise BadBars(
        f"{path}: line {row + 2}, column Stock Splits: the price does not follow this split of "
        f"{bars['split_ratio'].iloc[row]:g}, though it follows others; the file mixes adjusted and "
        "raw prices"
    )


def _refuse(
    path: Path, table: pd.DataFrame, column: str, wrong: "pd.Series[bool] | np.ndarray", fault: str
) -> None:
    """Raise ``BadBars`` for the first row that is wrong."""
    rows = np.flatnonzero(np.asarray(wrong))
    if len(rows):
        value = table[column].iloc[rows[0]] if column in table else ""
        shown = repr(value) if isinstance(value, str) else f"{value:g}"
        more = f" ({len(rows)} such lines)" if len(rows) > 1 else ""
        name = next((n for n in (*REQUIRED, *OPTIONAL) if n.lower() == column), column)
        raise BadBars(f"{path}: line {rows[0] + 2}, column {name}: {shown} {fault}{more}")
