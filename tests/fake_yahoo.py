"""Yahoo's chart server on loopback: answers in its JSON, from a market the test has written.

It adjusts as Yahoo does: prices, dividends and volume for every split up to its own today. What it
should answer instead, once or always, is queued by the test.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd

from core import calendar

ZONE = "America/New_York"


@dataclass(frozen=True)
class Answer:
    """Something else than a chart."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeYahoo:
    """The markets by (symbol, interval): frames as traded, UTC index; null bars hold NaN."""

    url: str = ""
    markets: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)
    queued: list[Answer] = field(default_factory=list)  # for the next chart requests
    asked: list[str] = field(default_factory=list)  # paths of the chart requests seen

    def chart(self, symbol: str, query: dict[str, str]) -> Answer:
        interval = query["interval"]
        bars = self.markets.get((symbol, interval))
        if bars is None:
            known = [frame for (name, _), frame in self.markets.items() if name == symbol]
            if not known:
                problem = {"code": "Not Found", "description": "No data found, symbol may be gone"}
                return _json(404, {"chart": {"result": None, "error": problem}})
            bars = known[0].iloc[:0]
        result = _result(symbol, interval, bars, query)
        return _json(200, {"chart": {"result": [result], "error": None}})


def truncated(answer: Answer, at: int = 400) -> Answer:
    """Cut an answer off in the middle."""
    return Answer(answer.status, answer.body[:at], answer.headers)


@contextmanager
def serving() -> Iterator[FakeYahoo]:
    """Serve on a free port of loopback until the block ends."""
    yahoo = FakeYahoo()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if parts.path.startswith("/v8/finance/chart/"):
                yahoo.asked.append(self.path)
                symbol = parts.path.rsplit("/", 1)[1].replace("%5E", "^")
                answer = yahoo.queued.pop(0) if yahoo.queued else yahoo.chart(symbol, query)
            elif parts.path == "/v1/test/getcrumb":
                answer = Answer(200, b"c.r-u/mb")
            else:
                answer = Answer(404, b"")
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    yahoo.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield yahoo
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _json(status: int, content: dict[str, Any]) -> Answer:
    headers = {"Content-Type": "application/json;charset=utf-8"}
    return Answer(status, json.dumps(content).encode(), headers)


def _result(
    symbol: str, interval: str, bars: pd.DataFrame, query: dict[str, str]
) -> dict[str, Any]:
    daily = interval == "1d"
    opened = [_opening(t) if daily else int(t.timestamp()) for t in bars.index]
    later = np.array([bars["split_ratio"].iloc[row + 1 :].prod() for row in range(len(bars))])
    begin, end = int(query.get("period1", 0)), int(query.get("period2", 2**40))
    shown = [row for row, stamp in enumerate(opened) if begin <= stamp < end]
    if "range" in query:
        shown = shown[-1:]
    quote: dict[str, Any] = {}
    adjusted: list[float | None] = []
    if shown:
        for name in ("open", "high", "low", "close"):
            quote[name] = [_number(bars[name].iloc[row] / later[row]) for row in shown]
        quote["volume"] = [_whole(bars["volume"].iloc[row] * later[row]) for row in shown]
        adjusted = quote["close"]
    indicators: dict[str, Any] = {"quote": [quote]}
    if daily and shown:
        indicators["adjclose"] = [{"adjclose": adjusted}]
    result: dict[str, Any] = {"meta": _meta(symbol, interval, bars), "indicators": indicators}
    if shown:
        result["timestamp"] = [opened[row] for row in shown]
    events = _events(bars, opened, later, shown)
    return result | ({"events": events} if events else {})


def _events(
    bars: pd.DataFrame, opened: list[int], later: np.ndarray, shown: list[int]
) -> dict[str, Any]:
    dividends, splits = {}, {}
    for row in shown:
        stamp, ratio = opened[row], bars["split_ratio"].iloc[row]
        if bars["dividend"].iloc[row] > 0:
            amount = float(bars["dividend"].iloc[row] / later[row])
            dividends[str(stamp)] = {"amount": amount, "date": stamp}
        if ratio != 1.0:
            new, old = (ratio, 1.0) if ratio > 1 else (1.0, 1.0 / ratio)
            splits[str(stamp)] = {
                "date": stamp,
                "numerator": new,
                "denominator": old,
                "splitRatio": f"{new:g}:{old:g}",
            }
    events = {"dividends": dividends, "splits": splits}
    return {name: found for name, found in events.items() if found}


def _meta(symbol: str, interval: str, bars: pd.DataFrame) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "currency": "USD",
        "symbol": symbol,
        "exchangeName": "NMS",
        "instrumentType": "EQUITY",
        "firstTradeDate": 345479400,
        "regularMarketTime": 1739998801,
        "gmtoffset": -18000,
        "timezone": "EST",
        "exchangeTimezoneName": ZONE,
        "priceHint": 2,
        "dataGranularity": interval,
        "range": "",
        "validRanges": ["1d", "5d", "1mo", "1y", "max"],
    }
    if interval != "1d":
        meta["tradingPeriods"] = [[_period(day)] for day in bars.index.normalize().unique()]
    return meta


def _period(day: pd.Timestamp) -> dict[str, Any]:
    start = calendar.session_open("XNYS", day)
    end = calendar.session_close("XNYS", day)
    return {
        "timezone": "EST",
        "start": int(start.timestamp()),
        "end": int(end.timestamp()),
        "gmtoffset": -18000,
    }


def _opening(day: pd.Timestamp) -> int:
    return int((pd.Timestamp(day.date(), tz=ZONE) + pd.Timedelta(hours=9, minutes=30)).timestamp())


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(np.float32(value))  # Yahoo's own precision


def _whole(value: float) -> int | None:
    return None if np.isnan(value) else round(value)
