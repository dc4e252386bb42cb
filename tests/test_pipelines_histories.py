"""Histories are what they claim: real days reshuffled, a spectrum kept, an edge of known size."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

from core.bars import BAR_COLUMNS
from pipelines.edges import EDGES, SESSIONS, SHARPES, EdgeKind, below_average, net_sharpe
from pipelines.histories import REAL, History, randomised
from sources.bundled import LISTINGS

EVERY_KIND = [
    *(History("bootstrapped", n) for n in range(len(REAL))),
    *(History("randomised", n) for n in range(len(REAL))),
    History("trending", 0, 2.0),
    History("swinging", 0, 2.0),
    History("reverting", 0, 2.0),
]


@pytest.mark.parametrize("history", EVERY_KIND, ids=lambda history: history.name)
def test_a_history_is_a_sound_market_and_the_same_every_time(history: History) -> None:
    bars = history.bars()
    assert len(bars) == SESSIONS
    assert list(bars.columns) == list(BAR_COLUMNS)
    assert np.isfinite(bars.to_numpy()).all()
    assert (bars["high"] >= bars[["open", "close"]].max(axis=1)).all()
    assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()
    assert bars["low"].min() > 0.0
    pd.testing.assert_frame_equal(bars, history.bars())


def days(bars: pd.DataFrame) -> np.ndarray:
    """Return what tells one day from another (T, 3): return, open and high over close, as logs."""
    close = np.log(bars["close"].to_numpy())
    shape = [np.log(bars[name].to_numpy()) - close for name in ("open", "high")]
    return np.column_stack([np.diff(close), *(column[1:] for column in shape)])


def test_a_bootstrapped_history_is_made_of_real_days_in_blocks() -> None:
    real = days(LISTINGS["IXIC"].load())
    made = days(History("bootstrapped", 0).bars())
    distance, day = cKDTree(real).query(made)
    assert distance.max() < 1e-5  # prices are rounded to four decimals
    follows = np.mean(np.diff(day) == 1)
    assert 0.93 < follows < 0.97  # a new block after one bar in twenty


def test_random_phases_keep_drift_and_autocorrelation_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_t(3, 4_001)
    series = 0.05 + noise[1:] + 0.4 * noise[:-1]
    made = randomised(series, rng)
    assert made.mean() == pytest.approx(series.mean())
    assert made.std() == pytest.approx(series.std())
    assert np.abs(np.fft.rfft(made)) == pytest.approx(np.abs(np.fft.rfft(series)))
    assert abs(np.corrcoef(made, series)[0, 1]) < 0.1
    heavy, normal = (float((((x - x.mean()) / x.std()) ** 4).mean()) for x in (series, made))
    assert heavy > 5.0 > 3.5 > normal


@pytest.mark.parametrize("kind", EDGES)
@pytest.mark.parametrize("edge", SHARPES)
def test_the_planted_rule_earns_its_edge_after_costs(kind: EdgeKind, edge: float) -> None:
    bars = History(kind, int(10 * edge), edge).bars()
    assert net_sharpe(bars, EDGES[kind].rule) == pytest.approx(edge, abs=0.05)


def test_the_reverting_rule_is_a_short_average_and_knows_no_later_close() -> None:
    close = np.array([10.0, 9.0, 9.5, 12.0, 11.0])
    # Averages of logs with weight 1/3 for the newest, from 0: below, below, above, above.
    assert below_average(close).tolist() == [0.0, 1.0, 1.0, 0.0, 0.0]
    assert below_average(np.append(close, 1.0))[:5].tolist() == below_average(close).tolist()


@pytest.mark.parametrize("kind", EDGES)
def test_a_baseline_earns_most_of_an_edge_only_where_it_is_said_to(kind: EdgeKind) -> None:
    earned = [net_sharpe(History(kind, n, 2.0).bars(), crossover) for n in range(8)]
    assert (np.mean(earned) > 1.0) == EDGES[kind].owned


def crossover(close: np.ndarray) -> np.ndarray:
    """What ``ma_crossover`` does: long while the average of 12 closes is above that of 26."""
    fast, slow = (pd.Series(close).ewm(span=span).mean() for span in (12, 26))
    return np.where(fast > slow, 1.0, 0.0)
