"""Yahoo Finance through the yfinance library: daily and intraday bars of any listed asset.

Owns the way to Yahoo: where it is (``RATCHET_YAHOO_URL`` replaces its hosts), patience with its
rate limit, and Ratchet's names for its failures. Yahoo quotes prices, volumes and dividends
adjusted for splits; they are delivered so. Bars Yahoo knows nothing of (null) are left out and
counted as missing by the gate. Capital gains of funds are part of ``Dividends`` in Yahoo's data.

Reach of intraday history, by Yahoo's rules: 1m 7 days, 5m and 15m 60 days, 1h 730 days.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import pandas as pd
import yfinance as yahoo
from curl_cffi.requests import Session
from curl_cffi.requests.exceptions import RequestException
from yfinance.exceptions import YFException, YFRateLimitError, YFTickerMissingError

from core.bars import BAR_COLUMNS
from core.errors import RatchetError, SourceUnavailable, UnknownSymbol
from core.home import Home
from sources.port import Delivery

ADDRESS = "RATCHET_YAHOO_URL"  # for example http://127.0.0.1:8099
CHART = "/v8/finance/chart/"
ATTEMPTS = 3
LONGEST_WAIT = timedelta(minutes=2)  # a longer Retry-After is for the caller's schedule
USUAL_WAIT = timedelta(seconds=5)  # where Yahoo does not say how long
REACH = {
    "1d": timedelta(days=365 * 99),
    "1h": timedelta(days=729),
    "15m": timedelta(days=59),
    "5m": timedelta(days=59),
    "1m": timedelta(days=7),
}
COLUMNS = {
    "Open": "open",
    "High": "high",
    "Low": "low",
    "Close": "close",
    "Volume": "volume",
    "Dividends": "dividend",
    "Stock Splits": "split_ratio",
    "Adj Close": "adj_close",
}


class Yahoo:
    """Yahoo Finance as a source."""

    name = "yfinance"

    def __init__(
        self, cache: Path | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """``cache``: folder of yfinance's cookies and time zones; this home's by default."""
        self._cache = cache or Home.from_environment().root / "yfinance"
        self._sleep = sleep

    def fetch(self, symbol: str, interval: str, since: datetime | None, now: datetime) -> Delivery:
        """Return bars from ``since`` (as far back as Yahoo goes when ``None``) up to ``now``.

        The newest bar may still be in the making. Nothing new since ``since`` is an empty frame.
        Raises ``UnknownSymbol`` or ``SourceUnavailable``.
        """
        if interval not in REACH:
            raise UnknownSymbol(
                f"yfinance: Yahoo has no {interval} bars; it has {', '.join(REACH)}"
            )
        earliest = now - REACH[interval]
        start = max(since, earliest) if since is not None else earliest
        raw = self._history(symbol, interval, start)
        if raw.empty and since is None:
            raise UnknownSymbol(f"yfinance: Yahoo has no {interval} bars of {symbol!r}")
        frame = _canonical(raw, interval)
        after = pd.Timestamp(start).floor("D") if interval == "1d" else pd.Timestamp(start)
        frame = frame[(frame.index >= after) & (frame.index <= pd.Timestamp(now))]
        return Delivery(symbol, interval, frame, "split_adjusted", now.astimezone(UTC))

    def _history(self, symbol: str, interval: str, start: datetime) -> pd.DataFrame:
        self._cache.mkdir(parents=True, exist_ok=True)
        yahoo.set_tz_cache_location(str(self._cache))
        yahoo.config.debug.hide_exceptions = False
        logging.getLogger("yfinance").setLevel(logging.CRITICAL)  # what matters is raised
        with _YahooSession(symbol, self._sleep) as session:
            try:
                history: pd.DataFrame = yahoo.Ticker(symbol, session=session).history(
                    interval=interval, start=start, auto_adjust=False, actions=True
                )
            except RatchetError:
                raise
            except YFRateLimitError as error:
                raise SourceUnavailable(f"yfinance: {symbol}: {error}") from error
            except YFTickerMissingError:
                return pd.DataFrame()
            except (YFException, RequestException, OSError) as error:
                told = str(error).partition(" See https://")[0]  # curl's advice on its own codes
                raise SourceUnavailable(
                    f"yfinance: {symbol}: Yahoo did not answer ({told}); try again later"
                ) from error
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise SourceUnavailable(
                    f"yfinance: {symbol}: Yahoo's answer is not what yfinance expects "
                    f"({type(error).__name__}: {error}); a newer yfinance may know it"
                ) from error
        return history


class _YahooSession(Session):  # type: ignore[type-arg]
    """The HTTP session yfinance uses: other address if told so, patient, plain about failures."""

    def __init__(self, symbol: str, sleep: Callable[[float], None]) -> None:
        super().__init__(impersonate="chrome")
        self._symbol = symbol
        self._patience = sleep

    def request(self, method: Any, url: str, *args: Any, **kwargs: Any) -> Any:
        """Send a request; only answers that yfinance can read as charts are given back."""
        path = urlsplit(url).path
        url = _redirected(url)
        if CHART not in path:
            return super().request(method, url, *args, **kwargs)
        for attempt in range(1, ATTEMPTS + 1):
            response = super().request(method, url, *args, **kwargs)
            if response.status_code != 429:
                return self._readable(response)
            wait = _retry_after(response.headers.get("Retry-After"))
            if wait > LONGEST_WAIT:
                raise SourceUnavailable(
                    f"yfinance: {self._symbol}: Yahoo's rate limit asks for {wait} of patience; "
                    "try again after that"
                )
            if attempt < ATTEMPTS:
                self._patience(wait.total_seconds())
        raise SourceUnavailable(
            f"yfinance: {self._symbol}: still over Yahoo's rate limit after {ATTEMPTS} attempts; "
            "try again later"
        )

    def _readable(self, response: Any) -> Any:
        try:
            chart = json.loads(response.content)["chart"]
            problem = chart["error"] or {}
            found = chart["result"]
        except (ValueError, KeyError, TypeError) as error:
            raise SourceUnavailable(
                f"yfinance: {self._symbol}: Yahoo's answer (status {response.status_code}, "
                f"{len(response.content)} bytes) is not a whole chart ({error}); try again later"
            ) from error
        if problem.get("code") == "Not Found" or (not problem and not found):
            told = problem.get("description", "no data found")
            raise UnknownSymbol(f"yfinance: Yahoo has no symbol {self._symbol!r} ({told})")
        if problem or response.status_code >= 400:
            told = problem.get("description", f"status {response.status_code}")
            raise SourceUnavailable(f"yfinance: {self._symbol}: Yahoo refuses: {told}")
        return response


def _redirected(url: str) -> str:
    """Return ``url`` at the host ADDRESS names, if it names one."""
    address = os.environ.get(ADDRESS)
    if not address:
        return url
    there, here = urlsplit(address), urlsplit(url)
    return urlunsplit((there.scheme, there.netloc, here.path, here.query, ""))


def _retry_after(header: str | None) -> timedelta:
    """Read a Retry-After header: seconds, or an HTTP date."""
    if header is None:
        return USUAL_WAIT
    with suppress(ValueError):
        return timedelta(seconds=max(float(header), 0.0))
    with suppress(ValueError):
        return max(parsedate_to_datetime(header) - datetime.now(UTC), timedelta(0))
    return USUAL_WAIT


def _canonical(raw: pd.DataFrame, interval: str) -> pd.DataFrame:
    """Return yfinance's table as a delivered frame: our names, our clock, float64."""
    if raw.empty:
        empty = pd.DatetimeIndex([], dtype="datetime64[ns, UTC]", name="time")
        return pd.DataFrame(columns=[*BAR_COLUMNS, "adj_close"], index=empty, dtype=np.float64)
    frame = raw.rename(columns=COLUMNS)[[*BAR_COLUMNS, "adj_close"]].astype(np.float64)
    frame["split_ratio"] = frame["split_ratio"].where(frame["split_ratio"] > 0.0, 1.0)
    local = pd.DatetimeIndex(raw.index)
    time = local.tz_localize(None).normalize().tz_localize(UTC) if interval == "1d" else local
    frame.index = pd.DatetimeIndex(time.tz_convert("UTC"), name="time").as_unit("ns")
    return frame.sort_index()
