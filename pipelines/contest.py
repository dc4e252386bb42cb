"""The contest: candidate, champion and baselines over the same unseen bars, after costs.

Owns who takes part and on which rows. The verdict is the gate's, the books are the backtest's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.bars import Market
from core.errors import SpecMismatch
from core.home import Home
from core.rules import Rules
from core.settings import Params
from features.dataset import Dataset
from features.scaler import Scaler
from pipelines.dataset import load_dataset
from registry import models
from registry.baselines import BASELINES, BaselineKind, make_baseline
from registry.bundle import Bundle, load_bundle
from registry.policy import Policy
from training.backtest import BacktestResult, Decides, Seat, run_all
from training.splits import Window, stop_of, worst_drawdown

CANDIDATE, CHAMPION = "candidate", "champion"
FIRST_CHAMPION: BaselineKind = "buy_and_hold"  # what everybody can have without a model


@dataclass(frozen=True, slots=True)
class Champion:
    """The Production version and its bundle."""

    number: int
    bundle: Bundle
    baseline: bool  # a baseline holds the title: it is among the contenders by its own name

    def last_used_row(self, time: np.ndarray) -> int | None:
        """Return the row after the last bar it was trained or tuned on, None if never."""
        last = self.bundle.card.train_last
        return None if last is None else stop_of(time, np.datetime64(last[:19]))


def champion_of(home: Home, agent: str) -> Champion | None:
    """Return the Production version of an agent, None where there is none yet."""
    if "Production" not in models.aliases(home, agent):
        return None
    copy = models.production(home, agent)
    bundle = load_bundle(copy.folder, copy.bundle_sha256)
    return Champion(copy.number, bundle, bundle.card.algorithm in BASELINES)


def as_seen_by(
    home: Home, params: Params, agent: str, champion: Champion, dataset: Dataset
) -> Dataset | None:
    """Return ``dataset`` as the champion sees it; None where its features cannot be built now."""
    if champion.bundle.spec.sha256 == dataset.spec.sha256:
        return dataset
    try:
        return load_dataset(home, params, agent, champion.bundle.spec)
    except SpecMismatch:
        return None


def same_rows(learned: Dataset, traded: Dataset, rows: Window) -> Window:
    """Return the rows of ``traded`` at the times of ``rows`` of ``learned``."""
    if not len(rows):
        return Window(len(traded), len(traded))
    times = learned.market.time
    first = int(np.searchsorted(traded.market.time, times[rows.start]))
    stop = int(np.searchsorted(traded.market.time, times[rows.stop - 1], side="right"))
    return Window(max(first, traded.first_row), stop)


def over(
    policies: Mapping[str, tuple[Decides, Scaler, Dataset]],
    rows: Window,
    rules: Rules,
    cash: float,
) -> dict[str, BacktestResult]:
    """Return everybody's backtest over ``rows``; nobody's where the rows are too few."""
    if len(rows) < 2:
        return {}
    seats = [
        Seat(policy, dataset, scaler, rows.start) for policy, scaler, dataset in policies.values()
    ]
    return dict(zip(policies, run_all(seats, len(rows), rules, cash), strict=True))


def baselines(
    dataset: Dataset, scaler: Scaler, seed: int
) -> dict[str, tuple[Decides, Scaler, Dataset]]:
    """Return every baseline as a contender."""
    return {
        kind: (Policy.open(make_baseline(kind, dataset.spec, scaler, seed), 1), scaler, dataset)
        for kind in BASELINES
    }


def market_returns(market: Market) -> np.ndarray:
    """Return the price's own simple return of each bar (T,), splits taken out; the first is 0."""
    step = market.split_ratio[1:, 0] * market.close[1:, 0] / market.close[:-1, 0]
    return np.append(0.0, step - 1.0)


def worst_fall(markets: Sequence[Market]) -> float:
    """Return the deepest fall of the price itself inside any of the stretches, a fraction."""
    return max(worst_drawdown(np.cumprod(1.0 + market_returns(market))) for market in markets)
