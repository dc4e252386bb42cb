"""Trading side by side: what becomes of an account never depends on who sits beside it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from backtest_kit import FREE, PARAMS, apple, scaler

from core.errors import NotEnoughData
from core.rules import Rules
from features.dataset import Dataset
from features.scaler import Scaler
from registry.baselines import BASELINES, make_baseline
from registry.policy import Policy
from training.backtest import BacktestResult, run, run_all
from training.export import policy_onnx
from training.paths import run as run_paths
from training.splits import Window
from training.trading import Seat, trade

__all__ = ["apple", "scaler"]  # fixtures

RULES = Rules.of(PARAMS.account, PARAMS.costs, PARAMS.risk_for("aapl"))
CASH, BARS = 1e5, 120


def network(width: int, seed: int) -> Policy:
    """Return a discrete policy whose weights are drawn, as wide as a real one."""
    rng, sizes = np.random.default_rng(seed), (width, 64, 64, 3)
    layers = [
        (rng.normal(size=(a, b)) * 2.0 / np.sqrt(a), 0.1 * rng.normal(size=b))
        for a, b in pairwise(sizes)
    ]
    onnx = policy_onnx(layers, actions="discrete", allow_short=False, position_column=width - 11)
    return Policy.open(onnx)


@pytest.fixture(scope="module")
def width(apple: Dataset) -> int:
    return len(apple.spec.columns) + 11


def written(result: BacktestResult) -> list[bytes]:
    """Return everything a result holds as bytes."""
    arrays = [result.equity, result.position, result.asked, result.allowed, result.reasons]
    arrays += [result.score, result.confidence, result.observations, *result.fills]
    return [array.tobytes() for array in arrays]


def test_side_by_side_every_account_does_what_it_does_alone(
    apple: Dataset, scaler: Scaler, width: int
) -> None:
    first = apple.first_row
    other = apple.rows(first + 60, len(apple))
    policies = [Policy.open(make_baseline(kind, apple.spec, scaler)) for kind in BASELINES]
    one, two = network(width, 0), network(width, 1)
    seats = [Seat(policy, apple, scaler, first + 5) for policy in (*policies, one, two)]
    seats += [Seat(two, apple, scaler, first + 40), Seat(two, other, scaler, other.first_row)]
    together = run_all(seats, BARS, RULES, CASH)
    assert min(len(result.trades) for result in together[5:]) > 3
    for seat, result in zip(seats, together, strict=True):
        rows = Window(seat.start, seat.start + BARS)
        alone = run(seat.policy, seat.dataset, scaler, RULES, rows, CASH)
        assert written(result) == written(alone)
        assert result.trades == alone.trades
        assert dict(result.metrics) == pytest.approx(dict(alone.metrics), nan_ok=True, rel=0)


def test_one_policy_answers_all_its_accounts_in_one_call(
    apple: Dataset, scaler: Scaler, width: int
) -> None:
    policy = network(width, 0)
    seats = [Seat(policy, apple, scaler, apple.first_row + n) for n in range(16)]
    list(trade(seats, 2, RULES, CASH))
    assert policy.proved[16]  # where kernels depended on the number of rows, it would say False


def test_accounts_may_have_rules_of_their_own(apple: Dataset, scaler: Scaler, width: int) -> None:
    policy, start = network(width, 2), apple.first_row
    dear = FREE.but(slippage_rate=np.array([[0.0], [0.01]]))
    cheap, other = run_all([Seat(policy, apple, scaler, start)] * 2, BARS, dear, CASH)
    rows = Window(start, start + BARS)
    assert written(cheap) == written(run(policy, apple, scaler, FREE, rows, CASH))
    assert other.equity[-1] < cheap.equity[-1]


def looking_back(dataset: Dataset, window: int, rolling: bool) -> Dataset:
    """Return a dataset whose observations look back; rolling: each row scaled by 30 bars."""
    spec = replace(dataset.spec, window=window)
    if rolling:
        spec = replace(spec, scaler="rolling", rolling_window=30)
    return Dataset.of("AAPL", "AAPL", dataset.market, dataset.table, spec)


@pytest.mark.parametrize("kind", ["as it is", "a window", "rolling", "of unequal length"])
def test_a_path_is_its_backtest_to_the_last_bit(
    apple: Dataset, scaler: Scaler, width: int, kind: str
) -> None:
    whole, bars = apple, 300  # more than one block of them
    if kind in ("a window", "rolling"):
        whole = looking_back(apple, 3, kind == "rolling")
        scaler = Scaler.fit(whole.table[whole.first_row :], whole.spec)
        width = 3 * (width - 11) + 11
    lengths = (400, 450 if kind == "of unequal length" else 400)
    first = whole.first_row - whole.spec.look_back_rows
    histories = [
        whole.rows(first + 10 * n, first + 10 * n + length)
        for n, length in enumerate((*lengths, 400))
    ]
    start = max(history.first_row for history in histories)
    policy, rows = network(width, 3), Window(start, start + bars)
    paths = run_paths(policy, histories, scaler, RULES, rows, CASH)
    for place, history in enumerate(histories):
        alone = run(policy, history, scaler, RULES, rows, CASH)
        assert len(alone.trades) > 3
        assert paths.equity[:, place].tobytes() == alone.equity.tobytes()
        assert paths.returns[:, place].tobytes() == alone.returns.tobytes()
        assert paths.sharpe(252.0)[place] == pytest.approx(alone.metrics["sharpe"])
        assert paths.max_drawdown()[place] == pytest.approx(alone.metrics["max_drawdown"])


def test_a_seat_outside_its_dataset_is_refused(apple: Dataset, scaler: Scaler, width: int) -> None:
    policy, last = network(width, 0), len(apple) - BARS
    seats = [Seat(policy, apple, scaler, last), Seat(policy, apple, scaler, last + 1)]
    with pytest.raises(NotEnoughData, match=f"rows {last + 1} to {len(apple) + 1}"):
        next(trade(seats, BARS, RULES, CASH))
