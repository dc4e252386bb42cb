"""``params.yaml`` as one frozen object: whatever changes a result, and nothing else.

Each class is one section of the file; a field's comment gives its unit. Unknown keys, wrong types
and impossible values end in one ``ConfigError`` naming file, key, what was found and what would
do. Where things run, and secrets, come from the environment and never from here.
"""

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from core.errors import ConfigError, UnknownAgent, UnknownKey

Interval = Literal["1d", "1h", "15m", "5m", "1m", "5s"]
INTERVAL_SECONDS = {"1h": 3600, "15m": 900, "5m": 300, "1m": 60, "5s": 5}
LONGEST_TIMER_SECONDS = 1800  # of a daily bar: sessions are whole half hours
Source = Literal["bundled", "csv", "yfinance", "ibkr", "planted"]


def check_symbol(symbol: str) -> str:
    """Return ``symbol``; raise ``ConfigError`` if it cannot name files: it must lead nowhere."""
    if not re.fullmatch(r"[A-Za-z0-9^_][A-Za-z0-9^._=-]*", symbol):
        raise ConfigError(
            f"{symbol!r} is no symbol: expected letters, digits and ^ . = - _, such as AAPL, BRK-B "
            "or ^VIX"
        )
    return symbol


def _as_field(symbol: str) -> str:
    try:
        return check_symbol(symbol)
    except ConfigError as error:
        raise ValueError(str(error)) from None


Symbol = Annotated[str, AfterValidator(_as_field)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]  # of files, models and flows


class Section(BaseModel):
    """Frozen, strict about keys; numbers given as strings are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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
    limits: dict[str, Any] = {}  # overrides of `risk:`, keys and types of RiskLimits
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


class Validation(Section):
    """Thresholds of the data gate."""

    max_missing_sessions: float = Field(0.02, ge=0, lt=1)  # fraction of calendar sessions absent
    max_quarantined: float = Field(0.02, ge=0, lt=1)  # fraction of rows taken out
    max_jump: float = Field(0.5, gt=0)  # |log return| not explained by a corporate action
    jump_volume: float = Field(5.0, gt=1)  # × the usual volume is news: a jump counts half
    max_stale_bars: int = Field(10, ge=1)  # run of identical closes with no volume
    max_stale_opens: float = Field(0.25, gt=0, le=1)  # share of opens equal to the close before
    calendar: str = "XNYS"  # exchange_calendars name


class Features(Section):
    """What a policy sees of the market; the fitted spec travels in the bundle."""

    indicators: tuple[str, ...] | Literal["all"] = "all"
    # columns of features/indicators.py, and a user's own as "package.module:function"
    include_vix: bool = True  # where the source has it
    scaler: Literal["zscore", "minmax", "rolling"] = "zscore"
    clip: float = Field(5.0, gt=0)  # scaled values are clipped to ± this
    rolling_window_bars: int = Field(252, ge=20)  # of the rolling scaler
    anchor_years: int = Field(2, ge=1)  # daily: history starts on 1 January so many years before
    anchor_sessions: int = Field(20, ge=2)  # intraday: history starts so many sessions before


class Split(Section):
    """Rows by time: train | validation | hold-out | paper."""

    train: float = Field(0.70, gt=0, lt=1)
    validation: float = Field(0.15, gt=0, lt=1)
    embargo_bars: int = Field(5, ge=0)  # dropped after a training window
    first_fold: float = Field(0.40, gt=0, lt=1)  # of the research rows: never out of sample
    paper_bars: int = Field(126, ge=0)  # newest bars, kept for the paper session


class Environment(Section):
    """The market as a Gymnasium environment."""

    window: int = Field(1, ge=1)  # newest feature rows in an observation
    episode_bars: int = Field(252, ge=2)
    accounts: int = Field(256, ge=1)  # stepped at once
    reward_scale: float = Field(100.0, gt=0)
    penalty: float = Field(0.1, ge=0)  # weight of the drawdown or volatility penalty


class Ppo(Section):
    """Fixed hyperparameters of PPO; the study searches the others around these."""

    learning_rate: float = Field(5e-4, gt=0)
    discount: float = Field(0.99, gt=0, lt=1)
    gae_lambda: float = Field(0.95, gt=0, le=1)
    clip: float = Field(0.2, gt=0)
    entropy: float = Field(0.005, ge=0)
    epochs: int = Field(4, ge=1)
    rollout_bars: int = Field(32, ge=1)  # per account and iteration
    minibatch: int = Field(1024, ge=1)
    hidden: tuple[int, ...] = (64, 64)
    steps: int = Field(400_000, ge=1)  # environment steps of one training


class Sac(Section):
    """Fixed hyperparameters of SAC."""

    learning_rate: float = Field(1e-3, gt=0)
    discount: float = Field(0.97, gt=0, lt=1)
    tau: float = Field(0.01, gt=0, le=1)
    batch: int = Field(256, ge=1)
    replay: int = Field(200_000, ge=1)  # transitions
    steps_per_update: int = Field(32, ge=1)  # environment steps per gradient update
    warmup: int = Field(2_000, ge=0)  # environment steps before the first update
    hidden: tuple[int, ...] = (64, 64)
    updates: int = Field(4_000, ge=1)  # gradient updates of one training


class Training(Section):
    """Ray actors inside one training, for batches and networks too large for one process.

    None is the fastest for networks of the usual size. Their numbers are part of what decides a
    policy's weights: the same numbers, the same weights.
    """

    runners: int = Field(0, ge=0)  # each steps a part of the accounts; 0: the training itself does
    learners: int = Field(0, ge=0)  # share every batch, average their gradients; 0: likewise


class Size(Section):
    """How much work one retraining is."""

    trials: int = Field(20, ge=1)
    seeds: int = Field(5, ge=1)
    folds: int = Field(4, ge=1)
    effort: float = Field(1.0, gt=0, le=10)  # multiplies `steps` and `updates`


class Search(Section):
    """The Optuna study inside every retraining."""

    generation: int = Field(4, ge=1)  # trials asked for together; independent of core count
    reports: int = Field(5, ge=2)  # validation points per trial at which it may be pruned
    prune_below_quantile: float = Field(0.35, ge=0, lt=1)
    seed: int = 0
    sizes: dict[str, Size] = {
        "default": Size(),
        "demo": Size(trials=6, seeds=3, folds=2, effort=0.25),
    }


class Gate(Section):
    """What a candidate has to show before it may become Production."""

    min_holdout_bars: int = Field(200, ge=20)
    confidence: float = Field(0.95, gt=0.5, lt=1)  # of the deflated Sharpe ratio
    champion_confidence: float = Field(0.90, gt=0.5, lt=1)  # of the difference to the champion
    difference_confidence: float = Field(0.95, gt=0.5, lt=1)  # of that to each baseline
    bootstrap_samples: int = Field(2_000, ge=100)
    bootstrap_block_bars: int = Field(10, ge=1)  # mean block of the stationary bootstrap
    max_drawdown: float = Field(0.35, gt=0, lt=1)  # on the hold-out
    worst_seed_loss: float = Field(0.15, gt=0, lt=1)  # of equity, on the hold-out
    superiority_level: float = Field(0.05, gt=0, lt=1)  # p-value against each baseline
    max_loss_probability: float = Field(0.60, gt=0, le=1)  # of the trial chosen elsewhere
    worst_regime_loss: float = Field(0.35, gt=0, lt=1)  # of equity, in any of the regimes
    min_capacity: float = Field(2.0, ge=1)  # multiples of the sleeve's own capital
    seed: int = 0


class Monitor(Section):
    """Drift: newest features against the Production model's own training window."""

    window_bars: int = Field(60, ge=20)
    threshold_quantile: float = Field(0.99, gt=0.5, lt=1)  # over windows of the training history
    alarms_in_a_row: int = Field(2, ge=1)
    cooldown_days: int = Field(21, ge=0)


class Shadow(Section):
    """Challengers beside Production on the live stream, each with a simulated book of its own."""

    versions: int = Field(4, ge=0)  # most at once; 0: none
    alpha: float = Field(0.05, gt=0, lt=0.5)  # that one no better is ever promoted
    drop_alpha: float = Field(0.05, gt=0, lt=0.5)  # that one no worse is dropped as worse
    longest_bars: int = Field(1_260, ge=20)  # an undecided challenger is dropped after them
    promotes: bool = False  # by itself; false: it says so, and a person promotes


class Paper(Section):
    """The paper worker."""

    bars_per_second: float = Field(0.0, ge=0)  # replay speed; 0: as fast as possible
    poll_seconds: float = Field(60.0, gt=0)  # of the yfinance stream
    alias_poll_seconds: float = Field(0.5, gt=0, le=1)
    snapshot_seconds: float = Field(5.0, gt=0)


class Portfolio(Section):
    """Limits across all sleeves of one account, which can only clip; ``None`` switches one off.

    Fractions of the whole account's equity: that of all sleeves together.
    """

    allocation: dict[Name, Annotated[float, Field(gt=0)]] = {}  # by agent: most its sleeve holds
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


class Demo(Section):
    """What ``ratchet demo`` runs."""

    agents: tuple[str, ...] = ("aapl", "ixic3x", "planted")
    size: str = "demo"


class Params(Section):
    """The whole of params.yaml."""

    agents: dict[Name, Agent]
    account: Account = Account()
    costs: Costs = Costs()
    risk: RiskLimits = RiskLimits()
    validation: Validation = Validation()
    features: Features = Features()
    split: Split = Split()
    environment: Environment = Environment()
    ppo: Ppo = Ppo()
    sac: Sac = Sac()
    training: Training = Training()
    search: Search = Search()
    gate: Gate = Gate()
    monitor: Monitor = Monitor()
    paper: Paper = Paper()
    portfolio: Portfolio = Portfolio()
    shadow: Shadow = Shadow()
    alerts: Alerts = Alerts()
    demo: Demo = Demo()

    def agent(self, name: str) -> Agent:
        """Return the entry ``agents.<name>``; raise ``UnknownAgent`` with the nearest name."""
        if name in self.agents:
            return self.agents[name]
        near = difflib.get_close_matches(name, self.agents, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(sorted(self.agents))
        raise UnknownAgent(f"no agent {name!r} in params.yaml; {hint}known agents: {known}")

    def risk_for(self, name: str, where: str = "params.yaml") -> RiskLimits:
        """Return ``risk:`` with the overrides of one agent's ``limits:``; raise ``ConfigError``."""
        limits = self.risk.model_dump() | self.agent(name).limits
        try:
            return RiskLimits.model_validate(limits)
        except ValidationError as error:
            raise _first_problem(error, where, RiskLimits, ("agents", name, "limits")) from error

    def size(self, name: str) -> Size:
        """Return ``search.sizes.<name>``."""
        if name not in self.search.sizes:
            known = ", ".join(sorted(self.search.sizes))
            raise ConfigError(f"no size {name!r} in params.yaml search.sizes; known: {known}")
        return self.search.sizes[name]


def load_params(path: Path) -> Params:
    """Read params.yaml; raise ``ConfigError`` naming file, key and remedy on anything wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; run this in a Ratchet checkout") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from None
    try:
        content = yaml.load(text, Loader=_OnceOnly)
    except yaml.MarkedYAMLError as error:
        at = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{path}: {at}not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections such as `agents:`, found {content!r}")
    return parse_params(content, where=str(path))


def parse_params(content: dict[str, Any], where: str = "params") -> Params:
    """Turn plain data into ``Params``; ``where`` names the origin in error messages."""
    try:
        # YAML knows lists only, tuples are ours: JSON mode accepts one for the other.
        params = Params.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise _first_problem(error, where, Params) from error
    except TypeError as error:
        raise ConfigError(
            f"{where}: a value is no text, number, list or section ({error})"
        ) from error
    for name in params.agents:
        params.risk_for(name, where)
    return params


class _OnceOnly(yaml.SafeLoader):
    """YAML that refuses a key given twice; the standard lets the later one win unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, ((key_node, _), key) in enumerate(zip(node.value, keys, strict=True)):
            if key in keys[:number] and key != "<<":
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark
                )
        return super().construct_mapping(node, deep)


def _first_problem(
    error: ValidationError,
    where: str,
    section: type[BaseModel],
    prefix: tuple[str, ...] = (),
) -> ConfigError:
    """Name the first problem of ``section``, which stands at ``prefix`` of the file."""
    problem = error.errors(include_url=False)[0]
    location = problem["loc"]
    # pydantic names the branch of a union, "tuple[str, ...]", as if it were a key.
    key = ".".join(str(part) for part in (*prefix, *location) if "[" not in str(part))
    if problem["type"] == "extra_forbidden":
        known = _known_keys(section, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return UnknownKey(f"{where}: unknown key `{key}`; {hint}")
    message = problem["msg"].removeprefix("Value error, ")
    found = problem.get("input")
    shown = f", found {found!r}" if not isinstance(found, dict) else ""
    return ConfigError(f"{where}: `{key}`: {message}{shown}")


def _known_keys(section: Any, location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = section.model_fields[str(part)].annotation
        else:
            section = get_args(section)[-1]  # dict[str, Agent]: every key leads to an Agent
    return sorted(section.model_fields)
