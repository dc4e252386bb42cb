"""Rules: every number the engine obeys, taken from params.yaml.

Knows neither accounts nor bars.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from core import settings
from core.arrays import Array, namespace


@dataclass(frozen=True, slots=True)
class Rules:
    """Every number the engine obeys.

    A number is a float, or an array that broadcasts against (n, k) where accounts differ (cost
    levels, stress): (n, 1) by account, (n, k) by symbol too where a rule is per symbol. ``None``
    switches a rule off.
    """

    fraction: Any  # of equity that weight 1.0 means
    allow_short: bool
    no_trade_band: Any  # weight change below which nothing is ordered
    commission_per_share: Any  # account currency
    commission_minimum: Any  # account currency per order
    commission_rate: Any | None  # fraction of the traded value
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
    are_plain: bool = field(init=False)  # every number is the same for all accounts
    has_stop: bool = field(init=False)
    has_target: bool = field(init=False)

    def __post_init__(self) -> None:
        numbers = (getattr(self, f.name) for f in fields(self) if f.init)
        plain = all(number is None or isinstance(number, float | int) for number in numbers)
        object.__setattr__(self, "are_plain", plain)
        stops, targets = (
            (self.stop_loss, self.stop_loss_atr),
            (self.take_profit, self.take_profit_atr),
        )
        object.__setattr__(self, "has_stop", any(rule is not None for rule in stops))
        object.__setattr__(self, "has_target", any(rule is not None for rule in targets))

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
            commission_rate=costs.commission_bps / 1e4 or None,
            slippage_rate=costs.slippage_bps / 1e4,
            volume_participation=costs.volume_participation,
            **risk.model_dump(),
        )

    def at(self, positions: Array, shape: tuple[int, ...]) -> "Rules":
        """Return the rules of flat ``positions`` (m,) among accounts × symbols of ``shape``."""
        if self.are_plain:
            return self
        picked: dict[str, Any] = {}
        for f in fields(self):
            number = getattr(self, f.name)
            if f.init and hasattr(number, "ndim"):
                spread = namespace(number).broadcast_to(number, shape)
                picked[f.name] = spread.reshape(-1)[positions]
        return replace(self, **picked)

    def but(self, **changes: Any) -> "Rules":
        """Return these rules with some numbers replaced: ``rules.but(slippage_rate=0.001)``."""
        return replace(self, **changes)
