"""What trades, under which limits and costs, and what a person hears of it.

Owns the sections of params.yaml that trading obeys: training and backtest obey the same ones.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from core.settings.section import INTERVAL_SECONDS, Interval, Name, Section, Source, Symbol

LONGEST_TIMER_SECONDS = 1800  # of a daily bar: sessions are whole half hours


class RiskLimits(Section):
    """Limits of one agent's sleeve; ``None`` switches a rule off."""

    max_weight: float = Field(1.0, gt=0)  # position limit per symbol, fraction of equity
    max_exposure: float = Field(1.0, gt=0)  # sum of |weights|, fraction of equity
    max_leverage: float = Field(1.0, ge=1)  # gross value / equity that a fill may reach
    volatility_target: float | None = Field(None, gt=0)  # annualised; scales weights down to it
    stop_loss: float | None = Field(None, gt=0, lt=1)  # fraction below entry
    take_profit: float | None = Field(None, gt=0)  # fraction above entry
    stop_loss_atr: float | None = Field(None, gt=0)  # multiples of ATR below entry
    take_profit_atr: float | None = Field(None, gt=0)  # multiples of ATR above entry
    cooldown_bars: int = Field(0, ge=0)  # bars without a new entry after a stop
    drawdown_window_bars: int = Field(252, ge=8)  # rolling peak is the highest close of these
    reduce_drawdown: float | None = Field(0.15, gt=0, lt=1)  # from the rolling peak
    reduce_factor: float = Field(0.5, ge=0, le=1)  # weights are multiplied by this while REDUCING
    halt_drawdown: float | None = Field(0.30, gt=0, lt=1)  # flatten, and stay flat
    ruin_fraction: float = Field(0.05, ge=0, lt=1)  # of the opening equity: terminated

    @model_validator(mode="after")
    def _reduce_before_halt(self) -> "RiskLimits":
        both = self.reduce_drawdown is not None and self.halt_drawdown is not None
        if both and self.reduce_drawdown >= self.halt_drawdown:  # type: ignore[operator]
            raise ValueError("reduce_drawdown must be smaller than halt_drawdown")
        return self


class Account(Section):
    """The sleeve an agent trades."""

    cash: float = Field(100_000.0, gt=0)  # opening cash, account currency
    fraction: float = Field(1.0, gt=0, le=1)  # fixed-fraction sizing: weight 1.0 means this much
    allow_short: bool = False
    no_trade_band: float = Field(0.02, ge=0, lt=1)  # weight change below which nothing is ordered


class Costs(Section):
    """What a fill costs; one rule for training, backtest, paper and shadow."""

    commission_per_share: float = Field(0.005, ge=0)  # account currency
    commission_minimum: float = Field(1.0, ge=0)  # per order, account currency
    commission_bps: float = Field(0.0, ge=0)  # of the traded value
    slippage_bps: float = Field(2.0, ge=0)  # of the price, against the trader
    volume_participation: float = Field(0.05, gt=0, le=1)  # most of a bar's volume one order fills


class Agent(Section):
    """One trader: what it trades, how it learns, which limits differ from ``risk:``."""

    symbol: Symbol
    source: Source = "bundled"
    interval: Interval = "1d"
    # decide every so often ("1s" … "30m") on the unfinished bar of `interval`; null: at its close
    decide: Annotated[str, Field(pattern=r"^[1-9]\d*(s|m)$")] | None = None
    algorithm: Literal["ppo", "sac"] = "ppo"
    actions: Literal["discrete", "continuous"] = "discrete"
    # log_return, sharpe, drawdown_penalty, volatility_penalty, or "package.module:function"
    reward: str = "log_return"
    train_on: Symbol | None = None  # learn on, and look at, this symbol; trade `symbol`
    limits: dict[str, Any] = Field({})  # overrides of `risk:`, keys and types of RiskLimits
    schedule: Literal["weekly", "monthly", "none"] = "weekly"
    # What becomes of orders and shares when it is stopped by the kill switch: hold cancels
    # every order, protect all but stops and targets, flatten sells the shares as well.
    when_stopped: Literal["hold", "protect", "flatten"] = "protect"
    demonstration: bool = False  # runs in `ratchet demo` only; never scheduled or served by default

    @model_validator(mode="after")
    def _sac_is_continuous(self) -> "Agent":
        if self.algorithm == "sac" and self.actions == "discrete":
            raise ValueError("algorithm sac needs `actions: continuous`")
        return self

    @model_validator(mode="after")
    def _timer_divides_the_bar(self) -> "Agent":
        if self.decide is None:
            return self
        length = INTERVAL_SECONDS.get(self.interval, LONGEST_TIMER_SECONDS)
        longest = length if self.interval == "1d" else length // 2
        if self.decide_seconds > longest or length % self.decide_seconds:
            raise ValueError(
                f"decide: {self.decide} does not divide a {self.interval} bar; expected a whole "
                f"part of {length} s, from 1s"
            )
        return self

    @property
    def decide_seconds(self) -> int:
        """Seconds between two decisions; 0: it decides at the close of its bars."""
        if self.decide is None:
            return 0
        return int(self.decide[:-1]) * (60 if self.decide.endswith("m") else 1)

    @property
    def signal_symbol(self) -> str:
        """The symbol whose features the agent sees and on which it trains."""
        return self.train_on or self.symbol


class Paper(Section):
    """The paper worker."""

    bars_per_second: float = Field(0.0, ge=0)  # replay speed; 0: as fast as possible
    poll_seconds: float = Field(60.0, gt=0)  # of the yfinance stream
    alias_poll_seconds: float = Field(0.5, gt=0, le=1)
    snapshot_seconds: float = Field(5.0, gt=0)


class Shadow(Section):
    """Challengers beside Production on the live stream, each with a simulated book of its own."""

    versions: int = Field(4, ge=0)  # most at once; 0: none
    alpha: float = Field(0.05, gt=0, lt=0.5)  # that one no better is ever promoted
    drop_alpha: float = Field(0.05, gt=0, lt=0.5)  # that one no worse is dropped as worse
    longest_bars: int = Field(1_260, ge=20)  # an undecided challenger is dropped after them
    promotes: bool = False  # by itself; false: it says so, and a person promotes


class Portfolio(Section):
    """Limits across all sleeves of one account, which can only clip; ``None`` switches one off.

    Fractions of the whole account's equity: that of all sleeves together.
    """

    # by agent: most its sleeve holds
    allocation: dict[Name, Annotated[float, Field(gt=0)]] = Field({})
    max_exposure: float | None = Field(None, gt=0)  # of all sleeves, long and short added up
    max_symbol: float | None = Field(None, gt=0)  # of one symbol in all sleeves


def _as_level(value: Any) -> Any:
    """YAML reads a bare ``off`` as false and ``on`` as true."""
    return {True: "info", False: "off"}[value] if isinstance(value, bool) else value


# The least level that is sent; ``off``: never.
Least = Annotated[Literal["off", "info", "warning", "critical"], BeforeValidator(_as_level)]


class Alerts(Section):
    """What a person is told of, and how often; where to comes from the environment."""

    drawdown: Least = "info"  # a sleeve fell through one of `drawdown_steps`
    risk_state: Least = "info"  # ACTIVE, REDUCING, HALTED
    broker_lost: Least = "info"  # the link to the broker
    order_refused: Least = "info"  # an order refused, waiting or overtaken
    account: Least = "info"  # orders and positions that are not ours
    kill_switch: Least = "info"
    latency: Least = "info"  # from bar to order longer than `latency_ms`
    stalled: Least = "info"  # an agent, or the worker itself, does not answer
    signal_refused: Least = "info"
    feed_stale: Least = "info"
    model: Least = "warning"  # an alias that moved or was refused
    settings: Least = "info"  # params.yaml taken over, or refused, while running
    clip: Least = "warning"  # a limit of the whole account cut an order
    drift: Least = "info"
    gate: Least = "info"  # a candidate promoted or refused
    failure: Least = "info"  # a flow or the worker ended badly
    other: Least = "warning"
    drawdown_steps: tuple[float, ...] = (0.05, 0.10, 0.20)  # fractions below the rolling peak
    latency_ms: float = Field(1_000.0, gt=0)
    stall_seconds: float = Field(30.0, gt=0)  # without a sign of life from the trading loop
    quiet_seconds: float = Field(60.0, ge=0)  # between two messages of one event and agent
    repeat_seconds: float = Field(300.0, gt=0)  # while what was told of lasts

    @property
    def levels(self) -> dict[str, str]:
        """Return the least level of every event."""
        return {name: found for name, found in self if isinstance(found, str)}
