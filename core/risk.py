"""Risk: the only code that judges a target weight.

Training, backtest, paper and live call ``assess``; the verdict says what was asked, what is
allowed and why. Knows neither orders nor fills.
"""

from enum import IntFlag
from typing import NamedTuple

from core.accounts import Holding, Standing, State
from core.arrays import (
    Array,
    copysign,
    elementwise,
    is_nan,
    magnitude,
    maximum,
    minimum,
    namespace,
    quietly,
    record,
    total,
    where,
)
from core.bars import Bar, MarketRows, gathered
from core.rules import Numbers, Rules
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


# The bits that rules give, as numbers, which compiled code can add.
SHORT_DENIED = float(Reason.SHORT_DENIED)
VOLATILITY_SIZED = float(Reason.VOLATILITY_SIZED)
POSITION_LIMIT = float(Reason.POSITION_LIMIT)
EXPOSURE_LIMIT = float(Reason.EXPOSURE_LIMIT)
LEVERAGE_LIMIT = float(Reason.LEVERAGE_LIMIT)
DRAWDOWN_REDUCED = float(Reason.DRAWDOWN_REDUCED)
COOLDOWN = float(Reason.COOLDOWN)
NO_TRADE_BAND = float(Reason.NO_TRADE_BAND)
HALTED = float(Reason.HALTED)
HOLD = float("nan")

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

_WORDS_BY_BIT = [(int(reason), words) for reason, words in _WORDS.items()]


def describe(reasons: int) -> list[str]:
    """Return one phrase for every bit of ``reasons``."""
    return [words for bit, words in _WORDS_BY_BIT if int(reasons) & bit]


class Judgement(NamedTuple):
    """What risk made of a target, in numbers."""

    shares: Array  # to hold, not yet whole, where it moves
    moves: Array  # flag: there is something to order; else keep what is held and working
    unit: Array  # shares that weight 1.0 stands for
    reasons: Array  # sum of the bits of ``Reason``


class Verdict(NamedTuple):
    """What risk made of target weights; every property is an array (n, k)."""

    asked: Array  # (n, k) target weight, NaN: hold
    block: Array  # float64 (n, k, fields of Judgement)

    @property
    def shares(self) -> Array:
        """Shares to hold, not yet whole, where ``moves``."""
        return self.block[:, :, 0]

    @property
    def moves(self) -> Array:
        """Whether there is something to order; else keep what is held and working."""
        return self.block[:, :, 1] != 0.0

    @property
    def unit(self) -> Array:
        """Shares that weight 1.0 stands for."""
        return self.block[:, :, 2]

    @property
    def allowed(self) -> Array:
        """The weight that may be ordered; NaN: keep what is held and working."""
        xp = namespace(self.block)
        unit = xp.where(self.unit == 0.0, 1.0, self.unit)  # an account without equity
        return xp.where(self.moves, self.shares / unit, xp.nan)

    @property
    def reasons(self) -> Array:
        """Bits of ``Reason``, integers: a rule that changed what it found is a reason."""
        return namespace(self.block).astype(self.block[:, :, 3], namespace(self.block).int64)


def assess(state: State, target_weight: Array, bar: Bar | MarketRows, rules: Rules) -> Verdict:
    """Judge target weights (n, k) at the close of a bar; NaN asks to keep the shares.

    Limits bound what may be ordered; a position that drifts over one is trimmed at the next
    order that is not *hold*.
    """
    numbers = record(Numbers, rules.beside(state.account))
    with quietly():
        judged = judge(
            float(state.clock),
            record(Standing, state.account),
            record(Holding, state.position),
            target_weight,
            terms_of(record(Bar, gathered(bar)), numbers),
            numbers,
        )
    return Verdict(target_weight, namespace(state.account).stack(judged, axis=-1))


@elementwise
def judge(
    clock: float, standing: Standing, held: Holding, asked: Array, terms: Terms, rules: Numbers
) -> Judgement:
    """Apply the rules in order.

    No shorts, volatility sizing, position, exposure and leverage limits, reduction in a
    drawdown, halt, cooldown, no-trade band.
    """
    # An empty account is ruined, and weight 0 in any unit is 0.
    unit = standing.equity * rules.fraction / terms.close
    weight = maximum(asked, rules.lowest_weight)
    reasons = noted(SHORT_DENIED, asked, weight)
    sized = weight * terms.sizing
    reasons = reasons + noted(VOLATILITY_SIZED, weight, sized)
    limited = maximum(minimum(sized, rules.max_weight), -rules.max_weight)
    reasons = reasons + noted(POSITION_LIMIT, sized, limited)
    gross = minimum(rules.max_exposure, rules.max_leverage)
    levered = within_gross(limited, held.shares / unit, gross)
    tighter = where(rules.max_exposure <= rules.max_leverage, EXPOSURE_LIMIT, LEVERAGE_LIMIT)
    reasons = reasons + noted(tighter, limited, levered)
    shares = levered * unit
    fewer = reduced(standing, held, shares)
    reasons = reasons + noted(DRAWDOWN_REDUCED, shares, fewer)
    alive = where(standing.halted > 0.0, 0.0, fewer)
    reasons = reasons + noted(HALTED, fewer, alive)
    entered = without_entries(clock, held, alive)
    reasons = reasons + noted(COOLDOWN, alive, entered)
    moves = worth_an_order(held, entered, unit, rules)
    banned = where(moves | is_nan(entered), 0.0, NO_TRADE_BAND)
    return Judgement(entered, where(moves, 1.0, 0.0), unit, reasons + banned)


@elementwise
def noted(reason: Array, found: Array, left: Array) -> Array:
    """Return ``reason`` where a rule changed what it found, else 0; NaN for NaN is no change."""
    return where((found != left) & ((found == found) | (left == left)), reason, 0.0)


@elementwise
def within_gross(weight: Array, held: Array, limit: Array) -> Array:
    """Scale weights so that, with what is held unchanged, the gross stays within ``limit``."""
    hold = is_nan(weight)
    kept = total(where(hold, magnitude(held), 0.0))
    asked = total(where(hold, 0.0, magnitude(weight)))
    room = maximum(limit - kept, 0.0)
    part = magnitude(weight) / where(asked > 0.0, asked, 1.0)  # 1 where one symbol alone asks
    return where(asked > room, copysign(room * part, weight), weight)


@elementwise
def reduced(standing: Standing, held: Holding, shares: Array) -> Array:
    """Multiply what is asked while REDUCING; cut what a hold would keep when that begins."""
    scale = standing.weight_scale
    cut = is_nan(shares) & (standing.began_reducing > 0.0)
    return where(cut, held.shares * scale, shares * scale)


@elementwise
def without_entries(clock: float, held: Holding, shares: Array) -> Array:
    """While cooling, turn a new or larger position into hold, and a reversal into an exit."""
    cooling = held.entry_from > clock
    shares = where(cooling & (shares * held.shares < 0.0), 0.0, shares)
    larger = magnitude(shares) > magnitude(held.shares)
    return where(cooling & larger, HOLD, shares)


@elementwise
def worth_an_order(held: Holding, shares: Array, unit: Array, rules: Numbers) -> Array:
    """Say where ``shares`` is a change to order: no hold, and outside the no-trade band.

    The change is measured from where working orders lead: leaving them alone is then right.
    Neither an exit nor a trim to the position limit is too small.
    """
    heading = held.shares + held.pending_shares
    change = shares - heading
    # NaN, a hold, compares false throughout.
    large = (magnitude(change) >= rules.no_trade_band * unit) | (shares == 0.0)
    return large | ((magnitude(heading) > rules.max_weight * unit) & (change == change))
