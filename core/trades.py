"""Trades: the round trips behind an equity curve.

Owns the trade log of one account: when it went in and out, what it made and how far the price
went for and against it. Reads fills and bars; knows nothing of decisions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from core.bars import Market
from core.fills import STOP_EXIT, Fills, whole_shares

ORDER, STOP, TARGET, OPEN = "order", "stop", "target", "open"


@dataclass(frozen=True, slots=True)
class Trade:
    """One position from flat to flat in one symbol; a reversal ends one and begins the next.

    Shares and prices are in the shares of the last bar: a split on the way is divided out.
    """

    symbol: str
    side: int  # +1 long, -1 short
    entry_row: int  # row of the market in which it began
    exit_row: int  # row in which it ended, or the last row
    entry_time: np.datetime64  # UTC
    exit_time: np.datetime64  # UTC
    shares: float  # most held, > 0
    entry_price: float  # average paid for all that was opened, slippage included
    exit_price: float  # average received for all that was closed; the last close while open
    profit: float  # account currency, after commission, with dividends; marked while open
    profit_fraction: float  # of the value opened
    bars_held: int  # closes at which it was held
    adverse: float  # worst price against it, fraction of the average entry, ≤ 0 (MAE)
    favourable: float  # best price for it, fraction of the average entry, ≥ 0 (MFE)
    commission: float  # account currency
    exit_reason: str  # ORDER, STOP, TARGET, or OPEN

    @property
    def closed(self) -> bool:
        return self.exit_reason != OPEN


class FillLog(NamedTuple):
    """What one account traded, bar after bar; arrays (T, k) as in ``core.fills.Fills``."""

    open_shares: np.ndarray
    open_price: np.ndarray
    exit_shares: np.ndarray
    exit_price: np.ndarray
    exit_reason: np.ndarray
    commission: np.ndarray
    slippage: np.ndarray

    @property
    def traded_value(self) -> np.ndarray:
        """Value bought and sold in each bar, (T,), account currency."""
        at_open = np.abs(self.open_shares) * self.open_price
        return np.asarray(np.sum(at_open + np.abs(self.exit_shares) * self.exit_price, axis=1))


def log_fills(fills: Sequence[Fills], account: int = 0) -> FillLog:
    """Return the fills of one account, one element of ``fills`` per bar."""
    bars = Fills(np.stack([np.asarray(each.block)[account] for each in fills]))
    return FillLog(*(getattr(bars, name) for name in FillLog._fields))


def trades_of(market: Market, fills: FillLog) -> list[Trade]:
    """Return the trades of one account, by entry; the last may be OPEN.

    Row t of ``fills`` is what traded in row t of ``market``. The account begins flat.
    """
    trades: list[Trade] = []
    for column in range(len(market.symbols)):
        trades += _Log(market, fills, column).walk()
    return sorted(trades, key=lambda trade: (trade.entry_row, trade.symbol))


@dataclass(slots=True)
class _Position:
    """The trade that is going on; shares and prices after the splits so far."""

    side: int
    entry_row: int
    commission: float = 0.0
    held: float = 0.0  # shares, > 0
    most: float = 0.0  # shares
    opened: float = 0.0  # shares
    paid: float = 0.0  # value of them
    closed: float = 0.0  # shares
    received: float = 0.0  # value of them
    dividends: float = 0.0
    bars_held: int = 0
    lowest: float = np.inf
    highest: float = -np.inf

    def open(self, shares: float, price: float) -> None:
        self.held += shares
        self.most = max(self.most, self.held)
        self.opened += shares
        self.paid += shares * price

    def close(self, shares: float, price: float) -> None:
        self.held -= shares
        self.closed += shares
        self.received += shares * price

    def see(self, *prices: float) -> None:
        self.lowest = min(self.lowest, *prices)
        self.highest = max(self.highest, *prices)

    def act(self, ratio: float, dividend: float, open_: float) -> None:
        """Apply a split and a dividend as the engine does, before the open."""
        if ratio != 1.0:
            exact = self.held * ratio
            for name in ("held", "most", "opened", "closed"):
                setattr(self, name, getattr(self, name) * ratio)
            self.lowest, self.highest = self.lowest / ratio, self.highest / ratio
            # The fraction of a share is paid out at the open: a small close.
            self.close(exact - float(whole_shares(np.asarray(exact))), open_)
        self.dividends += self.held * dividend * self.side


class _Log:
    """Walks the fills of one symbol through its bars."""

    def __init__(self, market: Market, fills: FillLog, column: int) -> None:
        self.market = market
        self.fills = fills
        self.column = column
        self.position: _Position | None = None
        self.trades: list[Trade] = []

    def walk(self) -> list[Trade]:
        """Return the trades of the symbol."""
        c, fills = self.column, self.fills
        busy = (fills.open_shares[:, c] != 0.0) | (fills.exit_shares[:, c] != 0.0)
        for row in range(len(self.market)):
            if self.position is not None or busy[row]:
                self._live(row)
        if self.position is not None:
            self._finish(self.position, len(self.market) - 1, OPEN)
        return self.trades

    def _live(self, row: int) -> None:
        c, market, fills = self.column, self.market, self.fills
        if self.position is not None:
            split, dividend = market.split_ratio[row, c], market.dividend[row, c]
            self.position.act(float(split), float(dividend), float(market.open[row, c]))
            self.position.see(float(market.open[row, c]))
        at_open, inside = float(fills.open_shares[row, c]), float(fills.exit_shares[row, c])
        volume = abs(at_open) + abs(inside)
        fee = float(fills.commission[row, c]) / volume if volume else 0.0
        self._trade(row, at_open, float(fills.open_price[row, c]), fee, ORDER)
        if inside:
            reason = STOP if int(fills.exit_reason[row, c]) == STOP_EXIT else TARGET
            self._trade(row, inside, float(fills.exit_price[row, c]), fee, reason)
        if self.position is not None:
            self.position.see(float(market.low[row, c]), float(market.high[row, c]))
            self.position.bars_held += 1

    def _trade(self, row: int, shares: float, price: float, fee: float, reason: str) -> None:
        """Book signed ``shares``: first against the position, the rest opens another."""
        position = self.position
        if position is not None and shares * position.side < 0.0:
            closing = min(abs(shares), position.held)
            position.close(closing, price)
            position.commission += closing * fee
            position.see(price)
            shares += closing * position.side
            if position.held == 0.0:
                self._finish(position, row, reason)
        if shares == 0.0:
            return
        if self.position is None:
            self.position = _Position(side=1 if shares > 0.0 else -1, entry_row=row)
        self.position.open(abs(shares), price)
        self.position.commission += abs(shares) * fee
        self.position.see(price)

    def _finish(self, position: _Position, row: int, reason: str) -> None:
        market, side = self.market, position.side
        last = float(market.close[row, self.column])
        received = position.received + position.held * last
        profit = side * (received - position.paid) + position.dividends - position.commission
        entry = position.paid / position.opened
        worst, best = position.lowest, position.highest
        if side < 0:
            worst, best = best, worst
        trade = Trade(
            symbol=market.symbols[self.column],
            side=side,
            entry_row=position.entry_row,
            exit_row=row,
            entry_time=market.time[position.entry_row],
            exit_time=market.time[row],
            shares=position.most,
            entry_price=entry,
            exit_price=position.received / position.closed if reason != OPEN else last,
            profit=profit,
            profit_fraction=profit / position.paid,
            bars_held=position.bars_held,
            adverse=min(0.0, side * (worst / entry - 1.0)),
            favourable=max(0.0, side * (best / entry - 1.0)),
            commission=position.commission,
            exit_reason=reason,
        )
        self.trades.append(trade)
        self.position = None
