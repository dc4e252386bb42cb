"""What the training tests share: a small market with a known answer and lessons in it."""

from typing import Any

import numpy as np

from core.settings import Environment, Ppo, Sac
from features.dataset import Dataset
from features.scaler import Scaler
from training.environment import MarketBatch
from training.known_answer import CASH, KnownMarket, known_dataset, known_rules
from training.learn import Lesson
from training.rewards import find_reward

MARKET = KnownMarket(strength=0.006)
SMALL_PPO = Ppo(steps=2_048, rollout_bars=8, minibatch=256, hidden=(16, 16))
SMALL_SAC = Sac(updates=8, warmup=256, batch=32, replay=2_000, hidden=(16, 16))


def small_dataset(bars: int = 400, seed: int = 1) -> Dataset:
    return known_dataset(MARKET, bars, np.random.default_rng(seed))


def small_lesson(**changes: Any) -> Lesson:
    """Return a lesson of a second or less; ``changes`` replace its fields."""
    dataset = small_dataset()
    fields: dict[str, Any] = {
        "agent": "known",
        "actions": "discrete",
        "dataset": dataset,
        "train_rows": (0, 300),
        "validation_rows": (300, 400),
        "scaler": Scaler.fit(dataset.table[:300], dataset.spec),
        "rules": known_rules(MARKET),
        "environment": Environment(accounts=32, episode_bars=40),
        "reward": "log_return",
        "hyperparameters": SMALL_PPO,
        "seed": 7,
        "cash": CASH,
        "reports": 2,
    }
    return Lesson(**(fields | changes))


def small_batch(n: int = 3, seed: int = 0, **changes: Any) -> MarketBatch:
    """Return ``n`` accounts in the small market; ``changes`` replace arguments."""
    dataset = changes.pop("dataset", None) or small_dataset()
    arguments: dict[str, Any] = {
        "scaler": Scaler.fit(dataset.table, dataset.spec),
        "rules": known_rules(MARKET),
        "environment": Environment(accounts=n, episode_bars=40),
        "reward": find_reward("log_return"),
        "rows": (0, len(dataset)),
        "actions": "discrete",
        "cash": CASH,
    }
    return MarketBatch(dataset, n=n, rng=np.random.default_rng(seed), **(arguments | changes))
