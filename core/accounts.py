"""Accounts: the small state of ``n`` sleeves that trade ``k`` symbols each.

Owns what an account remembers, how it is opened and how it is written to JSON. Knows neither
prices nor rules: ``core/engine.py`` turns one state into the next.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from core.arrays import Array, namespace
from core.errors import CorruptFile

ACTIVE, REDUCING, HALTED = 0, 1, 2
UNKNOWN_ATR = 1e12  # price units: so far away that nothing touches it, and finite, so that 0 × is 0

_LEAST_EQUITY = 1e-9  # account currency: what a logarithm takes an empty account for


class Standing(NamedTuple):
    """What a sleeve remembers of its money; flags are 0 or 1."""

    cash: Array  # account currency
    equity: Array  # cash + shares at the newest close
    previous_equity: Array  # at the close before
    opening_equity: Array  # what the sleeve began with
    average_equity: Array  # exponentially weighted over about a month
    peak: Array  # highest close of equity in the rolling window
    block_peak: Array  # highest equity of the block of bars that is filling
    past_peak: Array  # highest of the full blocks
    weight_scale: Array  # reduce_factor while REDUCING, else 1
    reducing: Array  # flag: drawdown beyond reduce_drawdown
    began_reducing: Array  # flag: since this very bar
    halted: Array  # flag: flat for good
    ruined: Array  # flag: the equity is gone


class Holding(NamedTuple):
    """What a sleeve remembers of one symbol."""

    shares: Array  # whole, negative when short
    average_price: Array  # paid for the position, of the last one when flat
    stop_gap: Array  # from that price to the stop, price units, 0: none
    target_gap: Array  # from that price to the target, price units, 0: none
    pending_shares: Array  # signed whole shares still to trade
    last_trade: Array  # clock of the last fill
    entry_from: Array  # clock from which entries are allowed again
    atr: Array  # average true range at the newest close, UNKNOWN_ATR: unknown


class Recent(NamedTuple):
    """The weights asked last, NaN: hold; lies behind ``Holding``."""

    newest: Array
    second: Array
    third: Array


PEAK_BLOCKS = 8
RECENT, RECENT_DECISIONS = len(Holding._fields), len(Recent._fields)  # where Recent begins
ACCOUNT_NUMBERS, POSITION_NUMBERS = len(Standing._fields), RECENT + RECENT_DECISIONS
FLAGS = ("reducing", "began_reducing", "halted", "ruined")


class _OfAccount:
    """One field of ``Standing`` as an array (n,); flags as bool."""

    def __init__(self, name: str) -> None:
        self._at, self._flag = Standing._fields.index(name), name in FLAGS

    def __get__(self, state: Any, owner: Any = None) -> Array:
        number = state.account[:, 0, self._at]
        return number != 0.0 if self._flag else number


class _OfPosition:
    """One field of ``Holding`` as an array (n, k)."""

    def __init__(self, name: str) -> None:
        self._at = Holding._fields.index(name)

    def __get__(self, state: Any, owner: Any = None) -> Array:
        return state.position[:, :, self._at]


class _Books(NamedTuple):
    clock: int  # bars since the accounts were opened together
    account: Array  # float64 (n, 1, ACCOUNT_NUMBERS): Standing
    position: Array  # float64 (n, k, POSITION_NUMBERS): Holding, Recent
    past_peaks: Array  # float64 (PEAK_BLOCKS, n): highest equity of the full blocks, newest first


class State(_Books):
    """Books of ``n`` sleeves after the close of one bar; whole shares are held as floats.

    The numbers of one account lie side by side, where a loop over accounts finds them together;
    the properties are views of them. Nothing may write into a state: ``but`` makes another.
    """

    __slots__ = ()

    cash = _OfAccount("cash")
    equity = _OfAccount("equity")
    previous_equity = _OfAccount("previous_equity")
    opening_equity = _OfAccount("opening_equity")
    average_equity = _OfAccount("average_equity")
    peak = _OfAccount("peak")
    block_peak = _OfAccount("block_peak")
    past_peak = _OfAccount("past_peak")
    weight_scale = _OfAccount("weight_scale")
    reducing = _OfAccount("reducing")
    began_reducing = _OfAccount("began_reducing")
    halted = _OfAccount("halted")
    ruined = _OfAccount("ruined")
    shares = _OfPosition("shares")
    average_price = _OfPosition("average_price")
    stop_gap = _OfPosition("stop_gap")
    target_gap = _OfPosition("target_gap")
    pending_shares = _OfPosition("pending_shares")
    last_trade = _OfPosition("last_trade")
    entry_from = _OfPosition("entry_from")
    atr = _OfPosition("atr")

    @property
    def recent(self) -> tuple[Array, ...]:
        """Asked weights, newest first, RECENT_DECISIONS × (n, k), NaN: hold."""
        return tuple(self.position[:, :, RECENT + age] for age in range(RECENT_DECISIONS))

    @property
    def entry_price(self) -> Array:
        """Average price paid for the position, (n, k), 0 when flat."""
        return namespace(self.account).where(self.shares != 0.0, self.average_price, 0.0)

    @property
    def stop(self) -> Array:
        """Price that closes the position at a loss, (n, k), NaN: none."""
        return self._level(-1.0, self.stop_gap)

    @property
    def target(self) -> Array:
        """Price that takes the profit, (n, k), NaN: none."""
        return self._level(1.0, self.target_gap)

    def _level(self, direction: float, gap: Array) -> Array:
        xp = namespace(self.account)
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
        xp = namespace(self.account)
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
        return namespace(self.account).maximum(self.entry_from - self.clock, 0.0)

    @property
    def risk_state(self) -> Array:
        """ACTIVE, REDUCING or HALTED as integers, (n,)."""
        xp = namespace(self.account)
        active = xp.where(self.reducing, REDUCING, ACTIVE)
        return xp.where(self.halted, HALTED, active)

    @property
    def terminated(self) -> Array:
        """Ruined or halted, (n,) bool: nothing more will happen in this account."""
        return self.halted

    def but(self, **changes: Any) -> "State":
        """Return this state with some fields replaced: ``state.but(cash=…, shares=…)``."""
        xp = namespace(self.account)
        account, position = (
            xp.asarray(self.account, copy=True),
            xp.asarray(self.position, copy=True),
        )
        clock = changes.pop("clock", self.clock)
        past_peaks = changes.pop("past_peaks", self.past_peaks)
        for name, value in changes.items():
            if name in Standing._fields:
                account[:, 0, Standing._fields.index(name)] = value
            elif name in Holding._fields:
                position[:, :, Holding._fields.index(name)] = value
            elif name == "recent":
                for age, asked in enumerate(value):
                    position[:, :, RECENT + age] = asked
            else:
                raise TypeError(f"an account has no field {name!r} that could be replaced")
        return State(clock, account, position, past_peaks)

    def only(self, accounts: Any) -> "State":
        """Return the accounts that an index or a slice picks, as a state of their own."""
        account, position = self.account[accounts], self.position[accounts]
        if isinstance(account, np.ndarray):  # side by side again, whatever was picked
            account, position = np.ascontiguousarray(account), np.ascontiguousarray(position)
        return State(self.clock, account, position, self.past_peaks[:, accounts])


FIELDS = ("clock", *Standing._fields, "past_peaks", *Holding._fields, "recent")


def open_accounts(n: int, k: int, cash: float, xp: Any = np, device: Any = None) -> State:
    """Return ``n`` flat sleeves of ``k`` symbols with ``cash`` each; float64 arrays of ``xp``."""
    empty = State(
        clock=0,
        account=xp.zeros((n, 1, ACCOUNT_NUMBERS), dtype=xp.float64, device=device),
        position=xp.zeros((n, k, POSITION_NUMBERS), dtype=xp.float64, device=device),
        past_peaks=xp.zeros((PEAK_BLOCKS, n), dtype=xp.float64, device=device),
    )
    money = ("cash", "equity", "previous_equity", "opening_equity", "average_equity")
    opening = dict.fromkeys((*money, "peak", "block_peak"), cash)
    return empty.but(**opening, weight_scale=1.0, atr=UNKNOWN_ATR)


def choose(mask: Array, yes: State, no: State) -> State:
    """Return, account by account, ``yes`` where ``mask`` (n,) is true, else ``no``.

    ``choose(done, open_accounts(...), state)`` opens finished accounts anew. The clock is that
    of ``no``; what ``yes`` remembers by its own clock is moved.
    """
    if not isinstance(mask, np.ndarray):
        return _chosen(mask, _moved(yes, no.clock), no)
    rows = np.flatnonzero(mask)  # mostly few
    some = _moved(yes.only(rows), no.clock)
    account, position, past_peaks = no.account.copy(), no.position.copy(), no.past_peaks.copy()
    account[rows], position[rows] = some.account, some.position
    past_peaks[:, rows] = some.past_peaks
    return State(no.clock, account, position, past_peaks)


def _moved(state: State, clock: float) -> State:
    """Return the state as one at ``clock``, as long after its trades as it was."""
    later = clock - state.clock
    if not later:
        return state
    return state.but(last_trade=state.last_trade + later, entry_from=state.entry_from + later)


def _chosen(mask: Array, yes: State, no: State) -> State:
    xp = namespace(mask)
    return State(
        no.clock,
        xp.where(mask[:, None, None], yes.account, no.account),
        xp.where(mask[:, None, None], yes.position, no.position),
        xp.where(mask, yes.past_peaks, no.past_peaks),
    )


def joined(states: Sequence[State]) -> State:
    """Return the accounts of ``states`` as those of one; the clock is that of the last."""
    xp = namespace(states[0].account)
    return State(
        states[-1].clock,
        xp.concat([state.account for state in states], axis=0),
        xp.concat([state.position for state in states], axis=0),
        xp.concat([state.past_peaks for state in states], axis=1),
    )


def state_to_json(state: State) -> dict[str, Any]:
    """Return plain data that ``json.dumps`` writes and ``state_from_json`` reads back exactly.

    Floats are written as hexadecimal strings: every bit survives, and so do NaN and infinity.
    """
    return {name: _plain(getattr(state, name)) for name in FIELDS}


def state_from_json(written: Mapping[str, Any], xp: Any = np, device: Any = None) -> State:
    """Return the state ``state_to_json`` wrote; raise ``CorruptFile`` when it is none."""
    if set(written) != set(FIELDS):
        odd = ", ".join(sorted(set(written) ^ set(FIELDS)))
        raise CorruptFile(f"account snapshot: fields missing or unknown: {odd}")
    read: dict[str, Any] = {}
    for name, value in written.items():
        try:
            read[name] = _restored(value, xp, device)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CorruptFile(f"account snapshot: field {name!r} does not read: {error}") from error
    try:
        n, k = read["shares"].shape
        return open_accounts(n, k, 0.0, xp, device).but(**read)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CorruptFile(f"account snapshot: fields do not fit together: {error}") from error


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
