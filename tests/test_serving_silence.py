"""A minute of an open market without a trade: from when it is said, and what begins it anew."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Self

import pytest

from serving.history import Instrument
from serving.ibkr_ticks import IbkrTicks

OPEN = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
TIMED = Instrument("ibkr", "AAPL", "1m", 5)
LIVE, DELAYED = 1, 3  # IBKR's types of market data


@dataclass
class Updates:
    """Stands for an event of ib_async."""

    hearers: list[Callable[[Any], None]] = field(default_factory=list)

    def __iadd__(self, hear: Callable[[Any], None]) -> Self:
        self.hearers.append(hear)
        return self


class Tape:
    """Ticks of one symbol, on a clock that stands still."""

    def __init__(self) -> None:
        self.now = OPEN - timedelta(minutes=10)
        self.ticks = IbkrTicks("XNYS", lambda: self.now)
        self.ticker = SimpleNamespace(updateEvent=Updates(), volume=0.0, last=100.0)
        line: Any = SimpleNamespace(reqMktData=lambda contract: self.ticker)
        contract: Any = None
        self.ticks.keep(line, contract, TIMED, None)

    def at(self, seconds: float) -> str:
        """Ask so many seconds after the open."""
        self.now = OPEN + timedelta(seconds=seconds)
        return self.ticks.silent(TIMED, self.now, 60.0)

    def tells(self, volume: float, kind: int = LIVE) -> None:
        self.ticker.volume, self.ticker.marketDataType = volume, kind
        for hear in self.ticker.updateEvent.hearers:
            hear(self.ticker)


def since(seconds: int, why: str = "") -> str:
    moment = (OPEN + timedelta(seconds=seconds)).isoformat()
    return (
        f"AAPL: no trade was heard since {moment}, though the market is open; nothing is decided "
        f"until one is{why}"
    )


def test_a_minute_without_a_trade_is_said_from_its_last_second_on() -> None:
    tape = Tape()
    assert [tape.at(-1.0), tape.at(0.0), tape.at(59.9)] == [""] * 3  # of the open market
    assert tape.at(60.0) == since(0)
    tape.now = OPEN + timedelta(seconds=70)
    tape.tells(1_000.0)  # the day's volume, told the first time: no trade of now
    assert tape.at(70.0) == since(0)
    tape.tells(1_001.0)
    assert [tape.at(70.0), tape.at(129.9)] == [""] * 2
    assert tape.at(130.0) == since(70)
    tape.tells(1_001.0)  # told twice
    assert tape.at(131.0) == since(70)


def test_nobody_listens_to_a_closed_market_or_before_a_subscription() -> None:
    tape = Tape()
    assert tape.at(6.5 * 3_600.0 - 1.0) == since(0)
    assert tape.at(6.5 * 3_600.0) == ""
    other = Instrument("ibkr", "MSFT", "1m", 5)
    assert tape.ticks.silent(other, OPEN + timedelta(hours=1), 60.0) == ""


@pytest.mark.parametrize(("code", "why"), [(10197, "; IBKR: competing (10197)"), (162, "")])
def test_what_ibkr_says_of_it_is_told_until_a_trade_comes(code: int, why: str) -> None:
    tape = Tape()
    tape.ticks.refused(code, "competing")
    assert tape.at(60.0) == since(0, why)
    tape.tells(1.0)
    tape.tells(2.0)
    assert tape.at(120.0) == since(60)


def test_prices_of_a_quarter_of_an_hour_ago_are_no_trades() -> None:
    tape = Tape()
    tape.tells(1.0, DELAYED)
    tape.tells(2.0, DELAYED)
    delayed = "; IBKR: tells prices a quarter of an hour old; subscribe to market data"
    assert tape.at(60.0) == since(0, delayed)
    assert tape.ticks.heard() == ()
