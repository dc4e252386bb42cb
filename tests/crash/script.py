"""The script that is traded, and the market it meets: every kind of order in few bars.

Owns weights, bars, halts and thin auctions. By place: buy; hold; a sale that a halt holds up and
the next decision replaces; a purchase filled in part; flat at the end. Stop and target are reached.
"""

import math
import threading
from datetime import timedelta
from pathlib import Path

import ibkr_kit
from ibkr_kit import CASH, HISTORY_BARS, SYMBOL
from serving_kit import params

from core.settings import Params
from serving.history import Instrument

AGENT = "scripted"
INSTRUMENT = Instrument("bundled", SYMBOL, "1d")
WEIGHTS = (0.9, math.nan, 0.3, 0.7, 0.2, 0.95, 0.0, 0.0, 0.0)
HALTED = frozenset({3})  # no auction and no trade: what was sent keeps working
THIN = {6: 100.0}  # shares the opening auction takes; the rest is cancelled
FRAME = ibkr_kit.bars(HISTORY_BARS + len(WEIGHTS), seed=7)


def settings(snapshot_seconds: float) -> Params:
    return params(
        agents={AGENT: {"symbol": SYMBOL}},
        account={"cash": CASH, "no_trade_band": 0.0},
        risk={
            "stop_loss": 0.03,
            "take_profit": 0.025,
            "reduce_drawdown": None,
            "halt_drawdown": None,
        },
        paper={"alias_poll_seconds": 0.5, "snapshot_seconds": snapshot_seconds},
    )


class CrashMarket(ibkr_kit.Market):
    """Steps that are asked for by processes that die: one at a time, each once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, FRAME)
        self._one = threading.Lock()

    def play(self, place: int, phase: int) -> None:
        with self._one:
            super().play(place, phase)

    def go_on(self, closed: int) -> None:
        """Take one more step while nobody trades, the books being closed ``closed`` bars far.

        Not into the next day before a day is closed: IBKR tells its executions no longer then.
        """
        step = self._done + 1
        if step == 2 * (HISTORY_BARS + closed) + 1 or (
            step == 2 * (HISTORY_BARS + closed) and closed < len(WEIGHTS)
        ):
            self.play(step // 2, step % 2)

    def _open(self, place: int) -> None:
        if place - HISTORY_BARS in HALTED:
            return
        volume = THIN.get(place - HISTORY_BARS, math.inf)
        price = float(self.frame.iloc[place]["open"])
        self.at = self.frame.index[place].to_pydatetime() + timedelta(hours=14, minutes=30)
        self.tws.tell(self.exchange.auction(SYMBOL, price, volume))

    def _day(self, place: int) -> None:
        if place - HISTORY_BARS not in HALTED:
            super()._day(place)
