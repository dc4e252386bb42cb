"""Rules: every number the engine obeys, taken from params.yaml.

Knows neither accounts nor bars.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from core import settings
from core.arrays import Array, namespace

OFF = np.inf  # the number of a rule that is switched off: no limit


class Numbers(NamedTuple):
    """The rules as the engine computes with them: a number each, of one account or of all."""

    fraction: Array
    lowest_weight: Array  # 0 without shorts, else OFF: −∞
    no_trade_band: Array
    commission_per_share: Array
    commission_minimum: Array
    commission_rate: Array  # 0 when switched off
    slippage_rate: Array
    volume_participation: Array
    max_weight: Array
    max_exposure: Array
    max_leverage: Array
    volatility_target: Array  # or OFF
    stop_loss: Array  # or OFF
    take_profit: Array  # or OFF
    stop_loss_atr: Array  # or OFF
    take_profit_atr: Array  # or OFF
    cooldown_bars: Array
    reduce_drawdown: Array  # or OFF
    reduce_factor: Array
    halt_drawdown: Array  # or OFF
    ruin_fraction: Array


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
    block: np.ndarray = field(init=False, repr=False, compare=False)
    # float64 (n or 1, k or 1, numbers): those of ``Numbers``, side by side
    _copies: dict[Any, Array] = field(init=False, repr=False, compare=False)  # by device

    def __post_init__(self) -> None:
        numbers: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        numbers["lowest_weight"] = -OFF if self.allow_short else 0.0
        if self.commission_rate is None:
            numbers["commission_rate"] = 0.0
        rows = [_float64(numbers[name]) for name in Numbers._fields]
        shape = np.broadcast_shapes((1, 1), *(row.shape for row in rows))
        block = np.stack([np.broadcast_to(row, shape) for row in rows], axis=-1)
        object.__setattr__(self, "block", block)
        object.__setattr__(self, "_copies", {})

    def __reduce__(self) -> tuple[type["Rules"], tuple[Any, ...]]:
        return type(self), tuple(getattr(self, f.name) for f in fields(self) if f.init)

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

    def but(self, **changes: Any) -> "Rules":
        """Return these rules with some numbers replaced: ``rules.but(slippage_rate=0.001)``."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the rules of one account as plain data that reads back to the same bits."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Rules":
        return cls(**content)

    def of_each(self, accounts: int) -> np.ndarray:
        """Return ``self.block`` for accounts with one symbol; ``ValueError`` where it differs."""
        n, k = self.block.shape[:2]
        if n not in (1, accounts) or k != 1:
            raise ValueError(f"rules of {n} accounts and {k} symbols, expected {accounts} and 1")
        return self.block

    def beside(self, block: Array) -> Array:
        """Return ``self.block`` where the array ``block`` lives; copied there once."""
        xp = namespace(block)
        if xp is np:
            return self.block
        key = xp, block.device
        if key not in self._copies:
            self._copies[key] = xp.asarray(self.block, device=block.device)
        return self._copies[key]


def _float64(number: Any) -> np.ndarray:
    if number is None:
        return np.asarray(OFF)
    return np.asarray(number.cpu() if hasattr(number, "cpu") else number, np.float64)
