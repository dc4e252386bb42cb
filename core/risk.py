"""Risk: the rules a sleeve lives by, and the only code that judges a target weight.

Training, backtest, paper and live call ``assess``; the verdict says what was asked, what is
allowed and why. Account-wide clips of the live gateway stand at the end. Knows neither orders
nor fills.
"""

from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Any

from core import settings
from core.accounts import State
from core.arrays import Array, namespace, total
from core.bars import Bar


class Reason(IntFlag):
    """Why a verdict differs from what was asked; bits of one integer."""

    SHORT_DENIED = 1
    VOLATILITY_UNKNOWN = 2
    VOLATILITY_SIZED = 4
    POSITION_LIMIT = 8
    EXPOSURE_LIMIT = 16
    LEVERAGE_LIMIT = 32
    DRAWDOWN_REDUCED = 64
    COOLDOWN = 128
    NO_TRADE_BAND = 256
    HALTED = 512
    ACCOUNT_CLIP = 1024
    STALE_PRICE = 2048


_WORDS = {
    Reason.SHORT_DENIED: "the agent may not go short",
    Reason.VOLATILITY_UNKNOWN: "no new entry while volatility is unknown",
    Reason.VOLATILITY_SIZED: "weight scaled down to the volatility target",
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


@dataclass(frozen=True, slots=True)
class Rules:
    """Every number the engine obeys.

    A number is a float, or an array that broadcasts against (n, k) where accounts differ (cost
    levels, stress); per-account figures (leverage, exposure, drawdown) against (n,). ``None``
    switches a rule off.
    """

    fraction: Any  # of equity that weight 1.0 means
    allow_short: bool
    no_trade_band: Any  # weight change below which nothing is ordered
    commission_per_share: Any  # account currency
    commission_minimum: Any  # account currency per order
    commission_rate: Any  # fraction of the traded value
    slippage_rate: Any  # fraction of the price, against the trader
    volume_participation: Any  # fraction of a bar's volume
    max_weight: Any
    max_exposure: Any
    max_leverage: Any
    volatility_target: Any | None  # annualised
    stop_loss: Any | None  # fraction of the entry price
    take_profit: Any | None  # fraction of the entry price
    stop_loss_atr: Any | None  # multiples of ATR
    take_profit_atr: Any | None  # multiples of ATR
    cooldown_bars: int
    drawdown_window_bars: int
    reduce_drawdown: Any | None
    reduce_factor: Any
    halt_drawdown: Any | None
    ruin_fraction: Any  # of the opening equity

    @classmethod
    def of(
        cls, account: settings.Account, costs: settings.Costs, risk: settings.RiskLimits
    ) -> "Rules":
        """Return the rules that three sections of params.yaml describe."""
        return cls(
            fraction=account.fraction,
            allow_short=account.allow_short,
            no_trade_band=account.no_trade_band,
            commission_per_share=costs.commission_per_share,
            commission_minimum=costs.commission_minimum,
            commission_rate=costs.commission_bps / 1e4,
            slippage_rate=costs.slippage_bps / 1e4,
            volume_participation=costs.volume_participation,
            **risk.model_dump(),
        )

    def but(self, **changes: Any) -> "Rules":
        """Return these rules with some numbers replaced: ``rules.but(slippage_rate=0.001)``."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What risk made of a target: every rule in turn, and the weight (n, k) it left."""

    asked: Array  # (n, k) target weight, NaN: hold
    trail: tuple[tuple[Reason, Array], ...]  # weight after each rule; NaN: keep the shares

    @property
    def allowed(self) -> Array:
        """The weight (n, k) that may be ordered; NaN: keep the shares."""
        return self.trail[-1][1] if self.trail else self.asked

    @property
    def reasons(self) -> Array:
        """Bits of ``Reason``, (n, k): a rule that changed the weight is a reason.

        Folded only when asked for, so that training does not pay for it.
        """
        xp = namespace(self.asked)
        before, bits = self.asked, xp.zeros(self.asked.shape, dtype=xp.int64)
        for reason, after in self.trail:
            changed = (before != after) & ~(xp.isnan(before) & xp.isnan(after))
            bits = bits | xp.where(changed, int(reason), 0)
            before = after
        return bits


def assess(state: State, target_weight: Array, bar: Bar, rules: Rules) -> Verdict:
    """Judge target weights (n, k) at the close of ``bar``; NaN asks to keep the shares.

    Rules in order: no shorts, volatility sizing, position, exposure and leverage limits,
    reduction in a drawdown, cooldown, no-trade band, halt. Limits bound what may be ordered; a
    position that drifts over one is trimmed at the next order that is not *hold*.
    """
    xp = namespace(state.cash)
    # The value that weight 1.0 stands for; an empty account is ruined and gets no weight anyway.
    unit = (xp.maximum(state.equity, _LEAST_EQUITY) * rules.fraction)[:, None]
    held = state.shares * bar.close / unit
    trail: list[tuple[Reason, Array]] = []

    def after(reason: Reason, changed: Array) -> Array:
        trail.append((reason, changed))
        return changed

    weight = target_weight
    if not rules.allow_short:
        weight = after(Reason.SHORT_DENIED, xp.maximum(weight, 0.0))
    if rules.volatility_target is not None:
        blind = xp.isnan(bar.volatility)
        weight = after(Reason.VOLATILITY_UNKNOWN, _no_entry(xp, blind, weight, held))
        scale = rules.volatility_target / bar.volatility
        sized = xp.where(scale < 1.0, weight * scale, weight)
        weight = after(Reason.VOLATILITY_SIZED, sized)
    limited_from = weight
    weight = after(Reason.POSITION_LIMIT, _clip(xp, weight, rules.max_weight))
    for reason, limit in (
        (Reason.EXPOSURE_LIMIT, rules.max_exposure),
        (Reason.LEVERAGE_LIMIT, rules.max_leverage),
    ):
        weight = after(reason, _within_gross(xp, weight, held, limit))
    trim = (weight != limited_from) & ~xp.isnan(weight)
    if rules.reduce_drawdown is not None:
        began = state.began_reducing[:, None]
        # A hold would sit the drawdown out: when it begins, the position itself is cut, once.
        cut = xp.where(xp.isnan(weight) & began, held, weight) * rules.reduce_factor
        weight = after(Reason.DRAWDOWN_REDUCED, xp.where(state.reducing[:, None], cut, weight))
        trim = trim | began
    if rules.cooldown_bars:
        cooling = state.cooldown > 0.0
        weight = after(Reason.COOLDOWN, _no_entry(xp, cooling, weight, held))
    # The band compares with where working orders lead, so that leaving them alone is right.
    heading = held + state.pending_shares * bar.close / unit
    small = (xp.abs(weight - heading) < rules.no_trade_band) & (weight != 0.0)
    small = small & ~(trim & (xp.abs(weight) < xp.abs(heading)))
    weight = after(Reason.NO_TRADE_BAND, xp.where(small, xp.nan, weight))
    weight = after(Reason.HALTED, xp.where(state.terminated[:, None], 0.0, weight))
    return Verdict(asked=target_weight, trail=tuple(trail))


_LEAST_EQUITY = 1e-9  # account currency; keeps ruined accounts out of a division by zero


def _clip(xp: Any, weight: Array, limit: Any) -> Array:
    return xp.minimum(xp.maximum(weight, -limit), limit)


def _within_gross(xp: Any, weight: Array, held: Array, limit: Any) -> Array:
    """Scale weights so that, with what is held unchanged, the gross stays within ``limit``."""
    if weight.shape[1] == 1:
        return _clip(xp, weight, limit)
    hold = xp.isnan(weight)
    kept = total(xp.where(hold, xp.abs(held), 0.0))
    asked = total(xp.where(hold, 0.0, xp.abs(weight)))
    room = xp.maximum(limit - kept, 0.0)
    scale = xp.where(asked > room, room / xp.where(asked > 0.0, asked, 1.0), 1.0)
    return weight * scale[:, None]


def _no_entry(xp: Any, denied: Array, weight: Array, held: Array) -> Array:
    """Where ``denied``, turn a new or larger position into hold, and a reversal into an exit."""
    larger = denied & (xp.abs(weight) > xp.abs(held))
    reversal = denied & (weight * held < 0.0)
    return xp.where(reversal, 0.0, xp.where(larger, xp.nan, weight))
