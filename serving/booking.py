"""Booking: a sleeve's books from the executions of a real broker instead of the engine's fills.

Owns the arithmetic that ``core.engine`` does at the open for simulated fills: average price, gaps
of stop and target, cash. Corporate actions and the mark are the engine's own. Pure; knows no
broker.
"""

from collections.abc import Iterable

import numpy as np

from core import engine
from core.accounts import State
from core.arrays import record
from core.bars import Bar
from core.fills import nearer_gap
from core.rules import Numbers, Rules
from serving.brokers.port import Execution


def settle(state: State, bar: Bar, executions: Iterable[Execution], rules: Rules) -> State:
    """Return the books at the close of ``bar``, in which these executions were booked.

    A corporate action changes shares and stops and pays what is due, never the value.
    """
    if float(bar.split_ratio[0]) != 1.0:
        state = engine.apply_split(state, bar)
    held = float(state.shares[0, 0])
    state = state.but(cash=state.cash + held * float(bar.dividend[0]))
    booked = tuple(executions)
    traded = np.array([[any(execution.shares for execution in booked)]])
    return engine.mark(book(state, booked, rules), bar, traded, rules)


def book(state: State, executions: Iterable[Execution], rules: Rules) -> State:
    """Return the books after executions, oldest first; not marked."""
    for execution in executions:
        state = _booked(state, execution, rules)
    return state


def _booked(state: State, execution: Execution, rules: Rules) -> State:
    cash = float(state.cash[0]) - execution.shares * execution.price - execution.commission
    if not execution.shares:  # a fee that was told later than its fill
        return state.but(cash=cash)
    held = float(state.shares[0, 0])
    shares = held + execution.shares
    grown = max(abs(shares) - (abs(held) if held * shares > 0.0 else 0.0), 0.0)
    fresh = grown / max(abs(shares), 1.0)
    stop, target = _gaps(state, execution.price, rules)
    changes = {
        "cash": cash,
        "shares": shares,
        "average_price": _mixed(state.average_price, execution.price, fresh),
        "stop_gap": _mixed(state.stop_gap, stop, fresh),
        "target_gap": _mixed(state.target_gap, target, fresh),
    }
    if execution.leg == "stop":
        changes["entry_from"] = float(state.clock + 1 + rules.cooldown_bars)
    return state.but(**changes)


def _mixed(known: np.ndarray, new: float, fresh: float) -> float:
    return float(known[0, 0]) * (1.0 - fresh) + new * fresh


def _gaps(state: State, price: float, rules: Rules) -> tuple[float, float]:
    """Return the distance of stop and target from a fill's price, as the engine does; 0: none."""
    of = record(Numbers, rules.beside(state.account))
    gaps = (
        nearer_gap(price, state.atr, of.stop_loss, of.stop_loss_atr),
        nearer_gap(price, state.atr, of.take_profit, of.take_profit_atr),
    )
    return float(gaps[0][0, 0]), float(gaps[1][0, 0])
