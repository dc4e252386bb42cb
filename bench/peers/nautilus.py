"""A moving average crossover in NautilusTrader: one engine, one venue, one instrument."""

from decimal import Decimal
from typing import Any

import numpy as np
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig
from nautilus_trader.indicators import SimpleMovingAverage
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import Equity
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.trading.strategy import Strategy

VENUE = Venue("SIM")
ID = InstrumentId(Symbol("PATH"), VENUE)
BAR_TYPE = BarType.from_str("PATH.SIM-1-DAY-LAST-EXTERNAL")
DAY_NS = 86_400 * 10**9
SHARE_OF_CASH = 0.95


def instrument() -> Equity:
    """Return a stock that costs 1 bp to trade."""
    return Equity(
        instrument_id=ID,
        raw_symbol=Symbol("PATH"),
        currency=USD,
        price_precision=2,
        price_increment=Price.from_str("0.01"),
        lot_size=Quantity.from_int(1),
        ts_event=0,
        ts_init=0,
        maker_fee=Decimal("0.0001"),
        taker_fee=Decimal("0.0001"),
    )


def bars_of(columns: dict[str, np.ndarray], path: int) -> list[Bar]:
    """Return the daily bars of one history."""
    prices = [columns[name][:, path] for name in ("open", "high", "low", "close")]
    made = []
    for number, (open_, high, low, close) in enumerate(zip(*prices, strict=True)):
        at = (number + 1) * DAY_NS
        four = (Price(float(value), 2) for value in (open_, high, low, close))
        made.append(Bar(BAR_TYPE, *four, Quantity(5e6, 0), at, at))
    return made


class Cross(Strategy):  # type: ignore[misc]
    """Long while the fast average is above the slow one."""

    def __init__(self, fast: int, slow: int, cash: float) -> None:
        super().__init__()
        self.fast, self.slow = SimpleMovingAverage(fast), SimpleMovingAverage(slow)
        self.cash = cash

    def on_start(self) -> None:
        self.register_indicator_for_bars(BAR_TYPE, self.fast)
        self.register_indicator_for_bars(BAR_TYPE, self.slow)
        self.subscribe_bars(BAR_TYPE)

    def on_bar(self, bar: Any) -> None:
        if not self.slow.initialized:
            return
        above, flat = self.fast.value > self.slow.value, self.portfolio.is_flat(ID)
        if above and flat:
            free = self.portfolio.account(VENUE).balance_free(USD).as_double()
            shares = int(SHARE_OF_CASH * free / bar.close.as_double())
            if shares:
                self.submit_order(
                    self.order_factory.market(ID, OrderSide.BUY, Quantity.from_int(shares))
                )
        elif not above and not flat:
            self.close_all_positions(ID)


def run(bars: list[Bar], fast: int, slow: int, cash: float) -> float:
    """Trade the bars; return how many orders that took."""
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engine.add_venue(
        venue=VENUE,
        oms_type=OmsType.NETTING,
        account_type=AccountType.CASH,
        base_currency=USD,
        starting_balances=[Money(cash, USD)],
    )
    engine.add_instrument(instrument())
    engine.add_data(bars)
    engine.add_strategy(Cross(fast, slow, cash))
    engine.run()
    orders = float(engine.get_result().total_orders)
    engine.dispose()
    return orders
