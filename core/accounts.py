"""Accounts: the small state of ``n`` sleeves that trade ``k`` symbols each.

Owns what an account remembers, how it is opened and how it is written to JSON. Knows neither
prices nor rules: ``core/engine.py`` turns one state into the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from core.arrays import Array, namespace
from core.errors import CorruptFile

ACTIVE, REDUCING, HALTED = 0, 1, 2
RECENT_DECISIONS = 3
PEAK_BLOCKS = 8


@dataclass(frozen=True, slots=True)
class State:
    """Books of ``n`` sleeves after the close of one bar; whole shares are held as floats."""

    cash: Array  # (n,) account currency
    shares: Array  # (n, k) whole, negative when short
    entry_price: Array  # (n, k) average price paid, 0 when flat
    stop: Array  # (n, k) price that closes the position at a loss, NaN: none
    target: Array  # (n, k) price that takes the profit, NaN: none
    pending_shares: Array  # (n, k) signed whole shares still to trade
    atr: Array  # (n, k) average true range at the newest close, NaN: unknown
    equity: Array  # (n,) cash + shares at the newest close
    opening_equity: Array  # (n,) what the sleeve began with
    log_return: Array  # (n,) of equity over the newest bar
    month_return: Array  # (n,) exponentially weighted sum of log returns, about 21 bars
    peak: Array  # (n,) highest close of equity in the rolling window
    block_peak: Array  # (n,) highest equity of the block that is filling
    past_peaks: Array  # (PEAK_BLOCKS, n) of the full blocks, newest first
    block_age: Array  # (n,) bars in the block that is filling
    bars_since_trade: Array  # (n, k) bars since the last fill
    cooldown: Array  # (n, k) closes at which no entry is allowed yet
    recent: tuple[Array, ...]  # RECENT_DECISIONS × (n, k) asked target weights, newest first
    reducing: Array  # (n,) bool: drawdown beyond reduce_drawdown
    began_reducing: Array  # (n,) bool: since this very bar
    halted: Array  # (n,) bool: flat for good
    ruined: Array  # (n,) bool: the equity is gone

    @property
    def drawdown(self) -> Array:
        """Fall from the rolling peak, (n,), 0 to 1 (beyond 1 where equity is negative)."""
        return 1.0 - self.equity / self.peak

    @property
    def risk_state(self) -> Array:
        """ACTIVE, REDUCING or HALTED as integers, (n,)."""
        xp = namespace(self.cash)
        active = xp.where(self.reducing, REDUCING, ACTIVE)
        return xp.where(self.halted, HALTED, active)

    @property
    def terminated(self) -> Array:
        """Ruined or halted, (n,) bool: nothing more will happen in this account."""
        return self.halted | self.ruined


def open_accounts(n: int, k: int, cash: float, xp: Any = np, device: Any = None) -> State:
    """Return ``n`` flat sleeves of ``k`` symbols with ``cash`` each; float64 arrays of ``xp``."""

    def full(shape: tuple[int, ...], value: float) -> Array:
        return xp.full(shape, value, dtype=xp.float64, device=device)

    def no() -> Array:
        return xp.zeros((n,), dtype=xp.bool, device=device)

    return State(
        cash=full((n,), cash),
        shares=full((n, k), 0.0),
        entry_price=full((n, k), 0.0),
        stop=full((n, k), np.nan),
        target=full((n, k), np.nan),
        pending_shares=full((n, k), 0.0),
        atr=full((n, k), np.nan),
        equity=full((n,), cash),
        opening_equity=full((n,), cash),
        log_return=full((n,), 0.0),
        month_return=full((n,), 0.0),
        peak=full((n,), cash),
        block_peak=full((n,), cash),
        past_peaks=full((PEAK_BLOCKS, n), 0.0),
        block_age=full((n,), 0.0),
        bars_since_trade=full((n, k), 0.0),
        cooldown=full((n, k), 0.0),
        recent=tuple(full((n, k), 0.0) for _ in range(RECENT_DECISIONS)),
        reducing=no(),
        began_reducing=no(),
        halted=no(),
        ruined=no(),
    )


def choose(mask: Array, yes: State, no: State) -> State:
    """Return, account by account, ``yes`` where ``mask`` (n,) is true, else ``no``.

    ``choose(done, open_accounts(...), state)`` opens finished accounts anew.
    """
    xp = namespace(mask)

    def pick(a: Array, b: Array) -> Array:
        # (n,) and (blocks, n) end in n, (n, k) begins with it.
        wide = a.ndim == 2 and a is not yes.past_peaks
        return xp.where(mask[:, None] if wide else mask, a, b)

    picked: dict[str, Any] = {}
    for field in fields(State):
        a, b = getattr(yes, field.name), getattr(no, field.name)
        both = isinstance(a, tuple)
        picked[field.name] = tuple(map(pick, a, b)) if both else pick(a, b)
    return State(**picked)


def state_to_json(state: State) -> dict[str, Any]:
    """Return plain data that ``json.dumps`` writes and ``state_from_json`` reads back exactly.

    Floats are written as hexadecimal strings: every bit survives, and so do NaN and infinity.
    """
    written: dict[str, Any] = {}
    for field in fields(State):
        value = getattr(state, field.name)
        written[field.name] = (
            [_plain(v) for v in value] if field.name == "recent" else _plain(value)
        )
    return written


def state_from_json(written: Mapping[str, Any], xp: Any = np, device: Any = None) -> State:
    """Return the state ``state_to_json`` wrote; raise ``CorruptFile`` when it is none."""
    names = {field.name for field in fields(State)}
    if set(written) != names:
        odd = ", ".join(sorted(set(written) ^ names))
        raise CorruptFile(f"account snapshot: fields missing or unknown: {odd}")
    read: dict[str, Any] = {}
    for name, value in written.items():
        try:
            if name == "recent":
                read[name] = tuple(xp.asarray(_array(v), device=device) for v in value)
            else:
                read[name] = xp.asarray(_array(value), device=device)
        except (TypeError, ValueError, KeyError) as error:
            raise CorruptFile(f"account snapshot: field {name!r} does not read: {error}") from error
    return State(**read)


def _plain(array: Array) -> dict[str, Any]:
    values = np.asarray(array.cpu() if hasattr(array, "cpu") else array)
    flat = values.ravel().tolist()
    if values.dtype == np.bool_:
        return {"shape": list(values.shape), "bool": [int(v) for v in flat]}
    return {"shape": list(values.shape), "float64": [float(v).hex() for v in flat]}


def _array(plain: Mapping[str, Any]) -> np.ndarray:
    if "bool" in plain:
        flat = np.array([bool(v) for v in plain["bool"]], dtype=np.bool_)
    else:
        flat = np.array([float.fromhex(v) for v in plain["float64"]], dtype=np.float64)
    return flat.reshape(plain["shape"])
