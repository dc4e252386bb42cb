"""Risk: the only code that judges a target weight.

Training, backtest, paper and live call ``assess``; the verdict says what was asked, what is
allowed and why. Knows neither orders nor fills.
"""

from enum import IntFlag
from operator import itemgetter
from typing import Any, NamedTuple

from core.accounts import State
from core.arrays import Array, at_least, at_most, namespace, put_rows, total, where_true
from core.bars import Bar
from core.rules import Rules
from core.terms import Terms, terms_of

__all__ = ["Reason", "Rules", "Verdict", "assess", "describe"]


class Reason(IntFlag):
    """Why a verdict differs from what was asked; bits of one integer."""

    SHORT_DENIED = 1
    VOLATILITY_SIZED = 2
    POSITION_LIMIT = 4
    EXPOSURE_LIMIT = 8
    LEVERAGE_LIMIT = 16
    DRAWDOWN_REDUCED = 32
    COOLDOWN = 64
    NO_TRADE_BAND = 128
    HALTED = 256
    ACCOUNT_CLIP = 512
    STALE_PRICE = 1024


_WORDS = {
    Reason.SHORT_DENIED: "the agent may not go short",
    Reason.VOLATILITY_SIZED: "weight scaled down to the volatility target (0 while it is unknown)",
    Reason.POSITION_LIMIT: "weight clipped to the position limit",
    Reason.EXPOSURE_LIMIT: "weights scaled down to the exposure limit",
    Reason.LEVERAGE_LIMIT: "weights scaled down to the leverage limit",
    Reason.DRAWDOWN_REDUCED: "weight reduced because of the drawdown",
    Reason.COOLDOWN: "no new entry so soon after a stop",
    Reason.NO_TRADE_BAND: "change too small to trade",
    Reason.HALTED: "halted: flat after too deep a drawdown or ruin",
    Reason.ACCOUNT_CLIP: "clipped to a limit of the whole account",
    Reason.STALE_PRICE: "no order on a stale price",
}


def describe(reasons: int) -> list[str]:
    """Return one phrase for every bit of ``reasons``."""
    return [words for reason, words in _WORDS.items() if int(reasons) & reason]


class Verdict(NamedTuple):
    """What risk made of a target: every rule in turn, and the shares it left.

    ``allowed`` and ``reasons`` are worked out when asked for, so that training does not pay.
    """

    asked: Array  # (n, k) target weight, NaN: hold
    shares: Array  # (n, k) shares to hold, not yet whole, where ``moves``
    moves: Array  # (n, k) bool; elsewhere keep what is held and working
    unit: Array  # (n, k) shares that weight 1.0 stands for
    trail: tuple[tuple[Reason, Array, Array], ...]  # rule, what it found, what it left

    @property
    def allowed(self) -> Array:
        """The weight (n, k) that may be ordered; NaN: keep what is held and working."""
        xp = namespace(self.asked)
        unit = xp.where(self.unit == 0.0, 1.0, self.unit)  # an account without equity
        return xp.where(self.moves, self.shares / unit, xp.nan)

    @property
    def reasons(self) -> Array:
        """Bits of ``Reason``, (n, k): a rule that changed what it found is a reason."""
        xp = namespace(self.asked)
        bits = xp.zeros_like(self.asked, dtype=xp.int64)
        for reason, found, left in self.trail:
            changed = (found != left) & ~(xp.isnan(found) & xp.isnan(left))
            bits = bits | xp.where(changed, int(reason), 0)
        banned = ~self.moves & ~xp.isnan(self.shares)
        return bits | xp.where(banned, int(Reason.NO_TRADE_BAND), 0)


def assess(state: State, target_weight: Array, bar: Bar | Terms, rules: Rules) -> Verdict:
    """Judge target weights (n, k) at the close of a bar; NaN asks to keep the shares.

    Rules in order: no shorts, volatility sizing, position, exposure and leverage limits,
    reduction in a drawdown, halt, cooldown, no-trade band. Limits bound what may be ordered; a
    position that drifts over one is trimmed at the next order that is not *hold*.
    """
    xp = namespace(state.cash)
    terms = bar if isinstance(bar, Terms) else terms_of(bar, rules)
    # An empty account is ruined, and weight 0 in any unit is 0.
    unit = (state.equity * rules.fraction)[:, None] / terms.close
    trail: list[tuple[Reason, Array, Array]] = []

    def rule(reason: Reason, found: Array, left: Array) -> Array:
        trail.append((reason, found, left))
        return left

    weight = target_weight
    if not rules.allow_short:
        weight = rule(Reason.SHORT_DENIED, weight, at_least(weight, 0.0))
    if rules.volatility_target is not None:
        weight = rule(Reason.VOLATILITY_SIZED, weight, weight * terms.sizing)
    for reason, limit in _limits(rules, weight.shape[1]):
        if reason is Reason.POSITION_LIMIT or weight.shape[1] == 1:
            left = _clip(weight, limit, rules)
        else:
            left = _within_gross(xp, weight, state.shares / unit, limit)
        weight = rule(reason, weight, left)
    shares = weight * unit
    if rules.reduce_drawdown is not None:
        left = _reduced(xp, state, shares)
        shares = rule(Reason.DRAWDOWN_REDUCED, shares, left)
    if len(where_true(state.halted)):
        shares = rule(Reason.HALTED, shares, xp.where(state.halted[:, None], 0.0, shares))
    if rules.cooldown_bars:
        left = _without_entries(xp, state, shares, rules)
        shares = rule(Reason.COOLDOWN, shares, left)
    moves = _worth_an_order(xp, state, shares, unit, rules)
    return Verdict(target_weight, shares, moves, unit, tuple(trail))


def _limits(rules: Rules, symbols: int) -> list[tuple[Reason, Any]]:
    """Return the limits that may bind: with one symbol, all bound its weight, so the tightest."""
    limits = [
        (Reason.POSITION_LIMIT, rules.max_weight),
        (Reason.EXPOSURE_LIMIT, rules.max_exposure),
        (Reason.LEVERAGE_LIMIT, rules.max_leverage),
    ]
    return [min(limits, key=itemgetter(1))] if symbols == 1 and rules.are_plain else limits


def _clip(weight: Array, limit: Any, rules: Rules) -> Array:
    capped = at_most(weight, limit)
    return at_least(capped, -limit) if rules.allow_short else capped


def _within_gross(xp: Any, weight: Array, held: Array, limit: Any) -> Array:
    """Scale weights so that, with what is held unchanged, the gross stays within ``limit``."""
    hold = xp.isnan(weight)
    kept = total(xp.where(hold, xp.abs(held), 0.0))
    asked = total(xp.where(hold, 0.0, xp.abs(weight)))
    room = xp.maximum(limit - kept, 0.0)
    return weight * xp.where(asked > room, room / xp.where(asked > 0.0, asked, 1.0), 1.0)


def _reduced(xp: Any, state: State, shares: Array) -> Array:
    """Multiply what is asked while REDUCING; cut what a hold would keep when that begins."""
    reduced = shares * state.weight_scale[:, None]
    rows = where_true(state.began_reducing)
    if len(rows) == 0:
        return reduced
    asked, kept = reduced[rows], state.shares[rows] * state.weight_scale[rows][:, None]
    return put_rows(reduced, rows, xp.where(xp.isnan(asked), kept, asked))


def _without_entries(xp: Any, state: State, shares: Array, rules: Rules) -> Array:
    """While cooling, turn a new or larger position into hold, and a reversal into an exit."""
    cooling = state.entry_from > state.clock
    if rules.allow_short:
        reversal = cooling & (shares * state.shares < 0.0)
        shares = xp.where(reversal, 0.0, shares)
        larger = cooling & (xp.abs(shares) > xp.abs(state.shares))
    else:
        larger = cooling & (shares > state.shares)
    return xp.where(larger, xp.nan, shares)


def _worth_an_order(xp: Any, state: State, shares: Array, unit: Array, rules: Rules) -> Array:
    """Say where ``shares`` is a change to order: no hold, and outside the no-trade band.

    The change is measured from where working orders lead: leaving them alone is then right.
    Neither an exit nor a trim to the position limit is too small.
    """
    heading = state.shares + state.pending_shares
    change = shares - heading
    # NaN, a hold, compares false throughout.
    moves = (xp.abs(change) >= rules.no_trade_band * unit) | (shares == 0.0)
    if rules.allow_short:
        return moves | ((xp.abs(heading) > rules.max_weight * unit) & (change == change))
    return moves | ((heading > rules.max_weight * unit) & (change < 0.0))
