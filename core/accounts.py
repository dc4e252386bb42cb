"""Accounts: the small state of ``n`` sleeves that trade ``k`` symbols each.

Owns what an account remembers, how it is opened and how it is written to JSON. Knows neither
prices nor rules: ``core/engine.py`` turns one state into the next.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from core.arrays import Array, namespace
from core.errors import CorruptFile

ACTIVE, REDUCING, HALTED = 0, 1, 2
RECENT_DECISIONS = 3
PEAK_BLOCKS = 8
UNKNOWN_ATR = 1e12  # price units: so far away that nothing touches it, and finite, so that 0 × is 0

_LEAST_EQUITY = 1e-9  # account currency: what a logarithm takes an empty account for


class State(NamedTuple):
    """Books of ``n`` sleeves after the close of one bar; whole shares are held as floats.

    A named tuple, not a dataclass: immutable as well, and four times as fast to make, which is
    felt at millions of account-steps a second.
    """

    clock: int  # bars since the accounts were opened together
    cash: Array  # (n,) account currency
    shares: Array  # (n, k) whole, negative when short
    average_price: Array  # (n, k) paid for the position, of the last one when flat
    stop_gap: Array  # (n, k) from that price to the stop, price units, 0: none
    target_gap: Array  # (n, k) from that price to the target, price units, 0: none
    pending_shares: Array  # (n, k) signed whole shares still to trade
    atr: Array  # (n, k) average true range at the newest close, UNKNOWN_ATR: unknown
    equity: Array  # (n,) cash + shares at the newest close
    previous_equity: Array  # (n,) at the close before
    opening_equity: Array  # (n,) what the sleeve began with
    average_equity: Array  # (n,) exponentially weighted over about a month
    peak: Array  # (n,) highest close of equity in the rolling window
    block_peak: Array  # (n,) highest equity of the block of bars that is filling
    past_peak: Array  # (n,) highest of past_peaks
    past_peaks: Array  # (PEAK_BLOCKS, n) of the full blocks, newest first
    last_trade: Array  # (n, k) clock of the last fill
    entry_from: Array  # (n, k) clock from which entries are allowed again
    recent: tuple[Array, ...]  # RECENT_DECISIONS × (n, k) asked weights, newest first, NaN: hold
    weight_scale: Array  # (n,) reduce_factor while REDUCING, else 1
    reducing: Array  # (n,) bool: drawdown beyond reduce_drawdown
    began_reducing: Array  # (n,) bool: since this very bar
    halted: Array  # (n,) bool: flat for good
    ruined: Array  # (n,) bool: the equity is gone

    @property
    def entry_price(self) -> Array:
        """Average price paid for the position, (n, k), 0 when flat."""
        return namespace(self.cash).where(self.shares != 0.0, self.average_price, 0.0)

    @property
    def stop(self) -> Array:
        """Price that closes the position at a loss, (n, k), NaN: none."""
        return self._level(-1.0, self.stop_gap)

    @property
    def target(self) -> Array:
        """Price that takes the profit, (n, k), NaN: none."""
        return self._level(1.0, self.target_gap)

    def _level(self, direction: float, gap: Array) -> Array:
        xp = namespace(self.cash)
        level = self.average_price + direction * xp.sign(self.shares) * gap
        there = (self.shares != 0.0) & (gap > 0.0) & (gap < 0.01 * UNKNOWN_ATR)
        return xp.where(there, level, xp.nan)

    @property
    def drawdown(self) -> Array:
        """Fall from the rolling peak, (n,), 0 to 1 (beyond 1 where equity is negative)."""
        return 1.0 - self.equity / self.peak

    @property
    def log_return(self) -> Array:
        """Log return of equity over the newest bar, (n,); an empty account counts as 1e-9."""
        xp = namespace(self.cash)
        before = xp.maximum(self.previous_equity, _LEAST_EQUITY)
        return xp.log(xp.maximum(self.equity, _LEAST_EQUITY) / before)

    @property
    def month_return(self) -> Array:
        """Equity over its average of about 21 bars, less 1, (n,)."""
        return self.equity / self.average_equity - 1.0

    @property
    def bars_since_trade(self) -> Array:
        """Bars since the last fill, (n, k); since the opening where there was none."""
        return self.clock - self.last_trade

    @property
    def cooldown(self) -> Array:
        """Closes, this one included, at which no entry is allowed, (n, k)."""
        return namespace(self.cash).maximum(self.entry_from - self.clock, 0.0)

    @property
    def risk_state(self) -> Array:
        """ACTIVE, REDUCING or HALTED as integers, (n,)."""
        xp = namespace(self.cash)
        active = xp.where(self.reducing, REDUCING, ACTIVE)
        return xp.where(self.halted, HALTED, active)

    @property
    def terminated(self) -> Array:
        """Ruined or halted, (n,) bool: nothing more will happen in this account."""
        return self.halted


def open_accounts(n: int, k: int, cash: float, xp: Any = np, device: Any = None) -> State:
    """Return ``n`` flat sleeves of ``k`` symbols with ``cash`` each; float64 arrays of ``xp``."""

    def accounts(value: float) -> Array:
        return xp.full((n,), value, dtype=xp.float64, device=device)

    def positions(value: float) -> Array:
        return xp.full((n, k), value, dtype=xp.float64, device=device)

    def no() -> Array:
        return xp.zeros((n,), dtype=xp.bool, device=device)

    return State(
        clock=0,
        cash=accounts(cash),
        shares=positions(0.0),
        average_price=positions(0.0),
        stop_gap=positions(0.0),
        target_gap=positions(0.0),
        pending_shares=positions(0.0),
        atr=positions(UNKNOWN_ATR),
        equity=accounts(cash),
        previous_equity=accounts(cash),
        opening_equity=accounts(cash),
        average_equity=accounts(cash),
        peak=accounts(cash),
        block_peak=accounts(cash),
        past_peak=accounts(0.0),
        past_peaks=xp.zeros((PEAK_BLOCKS, n), dtype=xp.float64, device=device),
        last_trade=positions(0.0),
        entry_from=positions(0.0),
        recent=tuple(positions(0.0) for _ in range(RECENT_DECISIONS)),
        weight_scale=accounts(1.0),
        reducing=no(),
        began_reducing=no(),
        halted=no(),
        ruined=no(),
    )


def choose(mask: Array, yes: State, no: State) -> State:
    """Return, account by account, ``yes`` where ``mask`` (n,) is true, else ``no``.

    ``choose(done, open_accounts(...), state)`` opens finished accounts anew. The clock is that
    of ``no``; what ``yes`` remembers by its own clock is moved.
    """
    xp = namespace(mask)
    later = no.clock - yes.clock
    yes = yes._replace(
        last_trade=yes.last_trade + later,
        entry_from=yes.entry_from + later,
    )

    def pick(name: str, a: Array, b: Array) -> Array:
        # (n,) and (PEAK_BLOCKS, n) end in n, (n, k) begins with it.
        by_symbol = a.ndim == 2 and name != "past_peaks"
        return xp.where(mask[:, None] if by_symbol else mask, a, b)

    chosen: dict[str, Any] = {"clock": no.clock}
    for name in State._fields[1:]:
        a, b = getattr(yes, name), getattr(no, name)
        if isinstance(a, tuple):
            chosen[name] = tuple(pick(name, x, y) for x, y in zip(a, b, strict=True))
        else:
            chosen[name] = pick(name, a, b)
    return State(**chosen)


def state_to_json(state: State) -> dict[str, Any]:
    """Return plain data that ``json.dumps`` writes and ``state_from_json`` reads back exactly.

    Floats are written as hexadecimal strings: every bit survives, and so do NaN and infinity.
    """
    return {name: _plain(getattr(state, name)) for name in State._fields}


def state_from_json(written: Mapping[str, Any], xp: Any = np, device: Any = None) -> State:
    """Return the state ``state_to_json`` wrote; raise ``CorruptFile`` when it is none."""
    if set(written) != set(State._fields):
        odd = ", ".join(sorted(set(written) ^ set(State._fields)))
        raise CorruptFile(f"account snapshot: fields missing or unknown: {odd}")
    read: dict[str, Any] = {}
    for name, value in written.items():
        try:
            read[name] = _restored(value, xp, device)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CorruptFile(f"account snapshot: field {name!r} does not read: {error}") from error
    return State(**read)


def _plain(value: Any) -> Any:
    if isinstance(value, int):
        return value
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    values = np.asarray(value.cpu() if hasattr(value, "cpu") else value)
    flat = values.ravel().tolist()
    if values.dtype == np.bool_:
        return {"shape": list(values.shape), "bool": [int(v) for v in flat]}
    return {"shape": list(values.shape), "float64": [float(v).hex() for v in flat]}


def _restored(plain: Any, xp: Any, device: Any) -> Any:
    if isinstance(plain, int):
        return plain
    if isinstance(plain, list):
        return tuple(_restored(v, xp, device) for v in plain)
    if "bool" in plain:
        flat = np.array([bool(v) for v in plain["bool"]], dtype=np.bool_)
    else:
        flat = np.array([float.fromhex(v) for v in plain["float64"]], dtype=np.float64)
    return xp.asarray(flat.reshape(plain["shape"]), device=device)
