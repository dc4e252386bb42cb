"""What is measured: the rows of the table, who takes part, what is asked and what is not equal.

Owns the list and nothing else. A note says in what a comparison is not one of equals.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import data
from bench.table import RATCHET

RLLIB_RETRAINS = "the same on RLlib as it comes"


@dataclass(frozen=True, slots=True)
class Contender:
    """One program that makes samples."""

    label: str  # in the table
    module: str  # run with ``python -m``
    name: str  # its first argument
    venv: str = RATCHET


@dataclass(frozen=True, slots=True)
class Row:
    """Ratchet beside its peers, all doing the same work in turns."""

    name: str
    work: str
    unit: str
    ratchet: Contender
    peers: tuple[Contender, ...]
    asked: Mapping[str, float]  # label -> Ratchet's rate over the peer's
    notes: tuple[str, ...]
    write: Callable[[Path, bool], None]
    fastest: bool = False  # asked of the fastest peer only
    one_core: bool = True  # pinned to one core, and processor time counts; else wall time
    seconds: float = 4.0  # of one sample, at least
    quick_seconds: float = 0.6
    budget: float = 180.0  # seconds of rounds: no further one begins once they are spent
    quick_budget: float = 30.0
    warm_up: bool = True  # a first round that does not count


@dataclass(frozen=True, slots=True)
class Limit:
    """Ratchet beside a limit: a command that prints JSON."""

    name: str
    work: str
    against: str
    unit: str
    module: str
    arguments: tuple[str, ...]
    read: Callable[[Any], tuple[list[float], float]]  # values, beside
    at_most: float
    notes: tuple[str, ...]
    quick_arguments: tuple[str, ...] = field(default=())


def _ours(name: str) -> Contender:
    return Contender("ratchet", "bench.sides", name)


ENVIRONMENTS = "bench.peers.gym_environments"

ENGINE = Row(
    name="engine",
    work="engine, 1024 accounts, every rule",
    unit="steps/s",
    ratchet=_ours("engine"),
    peers=tuple(
        Contender(label, ENVIRONMENTS, name, "learners")
        for label, name in (
            ("gym-anytrading StocksEnv", "gym-anytrading"),
            ("gym-trading-env TradingEnv", "gym-trading-env"),
            ("FinRL StockTradingEnv", "finrl"),
        )
    ),
    asked={
        "gym-anytrading StocksEnv": 30,
        "gym-trading-env TradingEnv": 30,
        "FinRL StockTradingEnv": 30,
    },
    fastest=True,
    write=data.write_engine,
    notes=(
        "The same bars. Peers pay 5 bps per trade; Ratchet pays its commission per share and "
        "slippage, and has stops, drawdown limits, volume limits, dividends and splits on, which "
        "no peer has.",
        "Peers hand out observations (gym-anytrading 50 × 2 numbers, the others one column and "
        "their own), rewards and infos from step(); the engine alone makes none: the PPO row has "
        "them on both sides.",
        "Peers step one environment, as they are made; resets of ended episodes count.",
        "gym-anytrading knows sell and buy; gym-trading-env weights 0 and 1; FinRL shares.",
    ),
)

SAME_LESSON = (
    "The same observation width (93; gym-anytrading 100), networks (tanh, 64×64 for actor and "
    "critic each), batch 8,192, minibatch 1,024, 4 epochs, learning rate, discount, λ, clip and "
    "entropy; one torch thread. The JSON holds the number of parameters of each."
)

PPO = Row(
    name="ppo",
    work="PPO with learning",
    unit="steps/s",
    ratchet=_ours("ppo"),
    peers=(
        Contender(
            "SB3, gym-anytrading", "bench.peers.stable_baselines", "ppo-gym-anytrading", "learners"
        ),
        Contender(
            "SB3, gym-trading-env",
            "bench.peers.stable_baselines",
            "ppo-gym-trading-env",
            "learners",
        ),
        Contender(
            "SB3, Ratchet's market", "bench.peers.stable_baselines", "ppo-ratchet", "learners"
        ),
        Contender("RLlib as it comes, Ratchet's market", "bench.peers.rllib", "ppo"),
    ),
    asked={
        "SB3, gym-anytrading": 4,
        "SB3, gym-trading-env": 4,
        "SB3, Ratchet's market": 2.5,
        "RLlib as it comes, Ratchet's market": 6,
    },
    write=data.write_learning,
    notes=(
        SAME_LESSON,
        "Ratchet steps 256 accounts × 32 bars a batch, Stable-Baselines3 16 environments × 512, "
        "RLlib 64 environments in its SingleAgentEnvRunner: each as it is meant to be used.",
        "The same closes; gym-anytrading and gym-trading-env pay 5 bps a trade, Ratchet's market "
        "20 bps on both sides. Their episodes, rewards and actions are their own.",
        "Stable-Baselines3 standardises advantages per minibatch, Ratchet per batch. Gradients are "
        "clipped at 0.5 by norm everywhere.",
    ),
)

SAC = Row(
    name="sac",
    work="SAC, batch 256, 32 steps an update",
    unit="updates/s",
    ratchet=_ours("sac"),
    peers=(
        Contender("RLlib SAC, EpisodeReplayBuffer", "bench.peers.rllib", "sac"),
        Contender("SB3 SAC", "bench.peers.stable_baselines", "sac-ratchet", "learners"),
    ),
    asked={"RLlib SAC, EpisodeReplayBuffer": 10, "SB3 SAC": 1},
    write=data.write_learning,
    notes=(
        "The same market, networks (tanh, 64×64), batch, rates, replay of 200,000 transitions and "
        "32 environment steps an update, rollouts included on all sides.",
        "Peers step 32 single environments in this process; Ratchet 256 accounts.",
        "Target entropies differ (Ratchet −2, peers −1): no arithmetic more or less.",
        "RLlib's own critics encode an action before they join it to the observation: more "
        "parameters, which is how RLlib comes. Peers' counts include the target networks.",
    ),
)

BACKTESTS = "bench.peers.backtests"

BACKTEST = Row(
    name="backtest",
    work="backtest, 2,500 bars a path",
    unit="bars/s",
    ratchet=_ours("backtest"),
    peers=(
        Contender("vectorbt from_signals", BACKTESTS, "vectorbt", "vectorbt"),
        Contender("backtesting.py, crossover", BACKTESTS, "backtesting", "vectorbt"),
        Contender("NautilusTrader, crossover", BACKTESTS, "nautilus-trader", "nautilus"),
    ),
    asked={
        "vectorbt from_signals": 1.5,
        "backtesting.py, crossover": 8,
        "NautilusTrader, crossover": 40,
    },
    write=data.write_paths,
    quick_seconds=0.5,
    notes=(
        "The same 256 bootstrapped histories. Ratchet observes about 100 numbers, asks a trained "
        "PPO network and applies risk, stops, volume limits and costs at every bar; its features "
        "are ready beforehand, as vectorbt's signals are.",
        "vectorbt: ready crossover signals (10 and 30 bars), every path in one call, its value at "
        "every bar. It decides nothing and fills at the close.",
        "backtesting.py and NautilusTrader cross the same averages, one path after the other "
        "(16 and 4 of them in turn); making their bars is not counted.",
        "Commission 1 bp, vectorbt 2 bps of slippage besides; Ratchet per share, 2 bps of "
        "slippage.",
    ),
)


def _table(printed: Mapping[str, Any]) -> tuple[list[float], float]:
    samples = printed["samples_ms"]
    return [sample[0] / sample[1] for sample in samples], float(printed["talib_ms"])


FEATURES = Limit(
    name="features",
    work="feature table, 10 symbols × 20 years",
    against="time inside TA-Lib's calls",
    unit="times",
    module="bench.features",
    arguments=("--repeats", "9"),
    quick_arguments=("--repeats", "5"),
    read=_table,
    at_most=1.5,
    notes=(
        "bench.features: the calls of TA-Lib that the table makes, recorded and made again by "
        "themselves, in turns with the table; the ratio of processor times.",
        "TA-Lib's time includes its Python functions as exported; the JSON holds the time without "
        "their search for pandas, too. The younger of the bundled markets have fewer days.",
    ),
)


def _latency(printed: Any) -> tuple[list[float], float]:
    parts = np.array_split(np.asarray(printed, float), 5)
    return [float(np.quantile(part, 0.99)) for part in parts], float(np.median(printed))


RETRAINING = Row(
    name="retraining",
    work="whole retraining of one agent, small",
    unit="an hour",
    ratchet=_ours("retraining"),
    peers=(Contender(RLLIB_RETRAINS, "bench.peers.rllib", "retraining"),),
    asked={RLLIB_RETRAINS: 4},
    write=data.write_nothing,
    seconds=0.0,  # one retraining a sample, however long
    quick_seconds=0.0,
    budget=900.0,
    quick_budget=15.0,
    warm_up=False,
    notes=(
        "The whole of `ratchet retrain` on one made-up market, registry, MLflow and reports "
        "included, in one process; trainings one after the other. 20 trials, 3 seeds and 2 folds "
        "on both sides, with QUICK 4, 2 and 1; 16,384 steps a training instead of 400,000: what is "
        "not training weighs more in so small a one.",
        "RLlib's side differs in the training alone: its own SingleAgentEnvRunner, connectors, "
        "modules and learner. It is scored on the validation rows and exported as Ratchet's is.",
        "Networks (64×64) and epochs (4) are held fixed and no trial is pruned, so that both sides "
        "train as much, whichever trial turns out best. Ray's servers, which RLlib needs, are not "
        "counted. Getting ready trains a little, so that no first time is measured.",
    ),
)

LATENCY = Limit(
    name="latency",
    work="bar in → order at the broker, p99",
    against="(beside: p50)",
    unit="ms",
    module="bench.latency",
    arguments=("--json", "--orders", "2000"),
    quick_arguments=("--json", "--orders", "150"),
    read=_latency,
    at_most=5.0,
    notes=(
        "bench.latency: from the worker's queue to the order's bytes on the socket of a fake TWS, "
        "the ledger's durable write included; the median of the p99 of five stretches.",
    ),
)

ROWS: tuple[Row | Limit, ...] = (ENGINE, PPO, SAC, BACKTEST, FEATURES, LATENCY, RETRAINING)
