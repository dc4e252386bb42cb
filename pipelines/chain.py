"""The chain: every number between bars and the gate, by the very code that trains and judges.

Owns the order of the steps and when each number was known. A step can be exchanged, so that a test
can plant a mistake and see the leak prover (``pipelines/leaks.py``) find it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.bars import RISK_COLUMNS
from core.errors import NotEnoughData
from core.home import Home
from core.rules import Rules
from core.settings import Params
from features.dataset import Dataset
from features.observation import observation_columns
from features.scaler import Scaler
from features.spec import FeatureSpec
from features.table import build_table, risk_columns
from pipelines.dataset import join, load_dataset
from pipelines.featurize import validated_bars, vix_closes
from pipelines.leaks import OPENING, Chain, Trace, World, require_none
from registry.policy import Decision
from sources.manifest import dataset_name
from training import backtest
from training.backtest import BacktestResult
from training.splits import Window

BARS_BEFORE, BARS_AFTER = 40, 5  # of a cut, in which the probe trades

Bars = Mapping[str, pd.DataFrame]


@dataclass(frozen=True, slots=True)
class Steps:
    """What the chain does; every step is Ratchet's own unless exchanged."""

    prepare: Callable[[Bars], Bars] = dict  # bars as the chain takes them
    select: Callable[[Bars, str], str] = lambda bars, symbol: symbol  # which is traded
    fit: Callable[[np.ndarray, int, FeatureSpec], Scaler] = lambda table, stop, spec: Scaler.fit(
        table[:stop], spec
    )  # table from its first complete row, rows to train on
    trade: Callable[..., BacktestResult] = backtest.run


@dataclass(frozen=True, slots=True)
class Plan:
    """Whose chain it is."""

    symbol: str  # names in ``World.bars``
    signal: str
    spec: FeatureSpec
    rules: Rules
    cash: float
    trained_until: pd.Timestamp  # the scaler is fitted on the rows up to here


def require_no_leak(
    home: Home, params: Params, agent: str, spec: FeatureSpec, trained_until: np.datetime64
) -> None:
    """Prove the whole chain of an agent on its own bars; raise ``FutureLeak`` where it fails."""
    entry = params.agent(agent)
    names = [dataset_name(one, entry.interval) for one in (entry.symbol, entry.signal_symbol)]
    bars = {name: validated_bars(home, name, entry.source) for name in names}
    world = World(bars, vix_closes(home) if spec.uses_vix else None)
    until = pd.Timestamp(trained_until).tz_localize("UTC")
    rules = Rules.of(params.account, params.costs, params.risk_for(agent))
    plan = Plan(names[0], names[1], spec, rules, params.account.cash, until)
    dataset = load_dataset(home, params, agent, spec)
    cuts = cuts_of(pd.DatetimeIndex(dataset.market.time, tz="UTC"), dataset.first_row)
    require_none(chain_of(plan), world, cuts, f"features of {agent}")


class Probe:
    """A policy that looks at everything: any number that moves may move its decision."""

    def decide(self, observation: np.ndarray) -> Decision:
        """Answer (n, D): a weight of 0, ¼ … 1 by the fraction of a weighted sum."""
        waves = np.cos(np.arange(observation.shape[1]) * 2.3)
        total = (observation.astype(np.float64) * waves).sum(axis=1)
        score = total - np.floor(total)
        return Decision(np.round(score * 4.0)[:, None] / 4.0, score[:, None], score)


def chain_of(plan: Plan, steps: Steps | None = None) -> Chain:
    """Return the chain as the prover takes it."""
    done = steps or Steps()
    return lambda world, cut: _trace(plan, done, world, cut)


def cuts_of(index: pd.DatetimeIndex, first: int, count: int = 3) -> Sequence[pd.Timestamp]:
    """Return ``count`` cuts between row ``first`` and the end, bars left on both sides."""
    low, high = first + BARS_BEFORE + 1, len(index) - BARS_AFTER - 2
    if high < low:
        raise NotEnoughData(
            f"{len(index)} bars, the leak prover needs {low + BARS_AFTER + 2}; give more"
        )
    rows = np.unique(np.linspace(low, high, count + 1).astype(int)[1:])
    return [index[row] for row in rows]


def _trace(plan: Plan, steps: Steps, world: World, cut: pd.Timestamp) -> Trace:
    bars = steps.prepare(world.bars)
    symbol = steps.select(bars, plan.symbol)
    traded, spec = bars[symbol], plan.spec
    features = build_table(bars[plan.signal], spec, spec.interval, world.vix)
    risk = risk_columns(traded, spec, spec.interval)[list(RISK_COLUMNS)]
    chosen = pd.DataFrame({symbol: 1.0}, index=traded.index)
    trace: dict[str, pd.DataFrame] = {
        "symbol": chosen,
        "bars": traded,
        "features": features,
        "risk": risk,
    }
    dataset = join(symbol, plan.signal, traded.join(risk), features, spec)
    time = pd.DatetimeIndex(dataset.market.time, tz="UTC")
    # Of rows that were trained on, only those before the cut were there to fit anything.
    until = min(plan.trained_until, cut - pd.Timedelta("1us"))
    trained = int(time.searchsorted(until, side="right"))
    first = dataset.first_row - spec.look_back_rows
    scaler = steps.fit(dataset.table[first:], trained - first, spec)
    trace["scaler"] = _fitted(scaler, time[trained - 1])
    scaled = scaler.transform(dataset.table)
    trace["scaled features"] = pd.DataFrame(scaled, index=time, columns=list(spec.columns))
    row = int(time.searchsorted(cut, side="right")) - 1
    start = max(row - BARS_BEFORE, dataset.first_row)
    rows = Window(start, min(row + BARS_AFTER, len(dataset)))
    result = steps.trade(Probe(), dataset, scaler, plan.rules, rows, plan.cash)
    return trace | _traded(result, time[rows.start : rows.stop], dataset)


def _fitted(scaler: Scaler, known: pd.Timestamp) -> pd.DataFrame:
    numbers = {f"centre of {n}": v for n, v in zip(scaler.columns, scaler.centre, strict=False)}
    numbers |= {f"spread of {n}": v for n, v in zip(scaler.columns, scaler.spread, strict=False)}
    return pd.DataFrame(numbers, index=pd.DatetimeIndex([known]))


def _traded(
    result: BacktestResult, time: pd.DatetimeIndex, dataset: Dataset
) -> dict[str, pd.DataFrame]:
    log = result.fills
    opening = {"open_shares": log.open_shares[:, 0], "open_price": log.open_price[:, 0]}
    inside = {
        "exit_shares": log.exit_shares[:, 0],
        "exit_price": log.exit_price[:, 0],
        "commission": log.commission[:, 0],
        "slippage": log.slippage[:, 0],
    }
    decided = {
        "asked": result.asked,
        "allowed": result.allowed,
        "reasons": result.reasons,
        "score": result.score,
    }
    gate = {"return": result.returns, "equity": result.equity, "position": result.position}
    columns = list(observation_columns(dataset.spec))
    return {
        OPENING: pd.DataFrame(opening, index=time),
        "fills inside the bar": pd.DataFrame(inside, index=time),
        "observation": pd.DataFrame(result.observations, index=time, columns=columns),
        "decision": pd.DataFrame(decided, index=time),
        "the gate's input": pd.DataFrame(gate, index=time),
    }
