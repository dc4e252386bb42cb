"""vectorbt, backtesting.py and NautilusTrader over the very histories that Ratchet trades.

    python -m bench.peers.backtests vectorbt --folder DIR --seconds 5

vectorbt gets ready signals, all paths as columns of one call. backtesting.py and NautilusTrader
cross two moving averages, one path after the other: each path a run of its own, its set-up counted,
as their users run it. All pay 1 bp of commission, vectorbt 2 bps of slippage besides.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.speak import Asked, Work, serve

FAST, SLOW = 10, 30  # bars
FEE, SLIPPAGE = 0.0001, 0.0002
CASH = 100_000.0
BARS = 2_500

Columns = dict[str, np.ndarray]


def average(close: np.ndarray, bars: int) -> np.ndarray:
    """Return the moving average along the first axis; NaN before there is one."""
    total = np.cumsum(close, axis=0)
    total[bars:] = total[bars:] - total[:-bars]
    total[: bars - 1] = np.nan
    return np.asarray(total / bars)


def vectorbt(columns: Columns) -> Work:
    """Return the work of ``Portfolio.from_signals`` and the value of every bar."""
    import pandas as pd
    import vectorbt as vbt

    close = pd.DataFrame(columns["close"])
    above = average(columns["close"], FAST) > average(columns["close"], SLOW)
    before = np.vstack([np.zeros_like(above[:1]), above[:-1]])
    entries, exits = pd.DataFrame(above & ~before), pd.DataFrame(~above & before)

    def work() -> float:
        made = vbt.Portfolio.from_signals(
            close, entries, exits, init_cash=CASH, fees=FEE, slippage=SLIPPAGE, freq="1D"
        )
        return float(made.value().size)

    return work


def backtesting(columns: Columns) -> Work:
    """Return the work of one ``Backtest`` per path."""
    import pandas as pd
    from backtesting import Backtest, Strategy
    from backtesting import lib as lib

    class Cross(Strategy):  # type: ignore[misc]
        def init(self) -> None:
            self.fast = self.I(average, self.data.Close, FAST)
            self.slow = self.I(average, self.data.Close, SLOW)

        def next(self) -> None:
            if lib.crossover(self.fast, self.slow):
                self.buy(size=0.95)
            elif lib.crossover(self.slow, self.fast):
                self.position.close()

    names = ("open", "high", "low", "close", "volume")
    days = pd.date_range("2000-01-03", periods=len(columns["close"]), freq="D")
    frames = [
        pd.DataFrame({n.title(): columns[n][:, path] for n in names}, index=days)
        for path in range(columns["close"].shape[1])
    ]
    turn = iter_forever(frames)

    def work() -> float:
        frame = next(turn)
        Backtest(frame, Cross, cash=CASH, commission=FEE).run()
        return float(len(frame))

    return work


def nautilus(columns: Columns) -> Work:
    """Return the work of one ``BacktestEngine`` per path; bars are made beforehand."""
    from bench.peers.nautilus import bars_of, run

    turn = iter_forever([bars_of(columns, path) for path in range(columns["close"].shape[1])])

    def work() -> float:
        bars = next(turn)
        run(bars, FAST, SLOW, CASH)
        return float(len(bars))

    return work


def iter_forever(items: list[Any]) -> Any:
    """Yield the items in turn, again and again."""
    while True:
        yield from items


PATHS: dict[str, tuple[Callable[[Columns], Work], int]] = {
    "vectorbt": (vectorbt, 10**6),
    "backtesting": (backtesting, 16),
    "nautilus-trader": (nautilus, 4),
}


def prepare(told: Asked) -> tuple[Work, dict[str, object]]:
    """Return the work of the library asked for."""
    make, most = PATHS[told.contender]
    kept = {
        name: column[:BARS, :most] for name, column in np.load(told.folder / "paths.npz").items()
    }
    return make(kept), {"bars": len(kept["close"]), "paths": kept["close"].shape[1]}


if __name__ == "__main__":
    serve(prepare, (sys.argv[1].replace("-", "_"), "numpy", "pandas"))
