import numpy as np
import pandas as pd
import pytest
from features_kit import daily_index, intraday_index, random_bars, spec
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from core.bars import BAR_COLUMNS
from features import live as live_module
from features.spec import FeatureSpec
from features.table import build_table, live_risk, live_row, risk_columns

DAILY = spec("1d")
INTRADAY = spec("15m", anchor_sessions=5)
INDEX = {"1d": daily_index(1300), "15m": intraday_index(30, 15)}
no_luck = settings(deadline=None, derandomize=True, max_examples=12, phases=[Phase.generate])


def arrays(bars: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    values = np.ascontiguousarray(bars[list(BAR_COLUMNS)].to_numpy(np.float64).T)
    return bars.index.to_numpy("datetime64[ns]"), values


@no_luck
@given(
    chosen=st.sampled_from([DAILY, INTRADAY]),
    seed=st.integers(0, 10**6),
    actions=st.booleans(),
    begin=st.integers(0, 1100),
    prepares=st.booleans(),
    steps=st.lists(st.sampled_from([1, 1, 1, 2, 3, 12]), min_size=60, max_size=60),
)
def test_a_row_carried_on_bar_by_bar_has_the_bytes_of_the_table(
    chosen: FeatureSpec, seed, actions, begin, prepares, steps
):
    bars = random_bars(INDEX[chosen.interval], seed, actions)
    if actions:  # and more of them than there would be
        bars.iloc[seed % 37 :: 37, bars.columns.get_loc("split_ratio")] = 2.0
        bars.iloc[seed % 11 :: 11, bars.columns.get_loc("dividend")] *= 1.5
        bars.iloc[seed % 23 :: 23, bars.columns.get_loc("dividend")] = 0.01
    table = build_table(bars, chosen, chosen.interval).to_numpy()
    risk = risk_columns(bars, chosen, chosen.interval).to_numpy()
    times, values = arrays(bars)
    row, risk_row = live_row(chosen), live_risk(chosen)
    assert row is not None
    for stop in np.minimum(begin % (len(bars) - 1) + np.cumsum(steps), len(bars)):
        known = times[:stop], values[:, :stop]
        assert row.newest(*known).tobytes() == table[stop - 1].tobytes(), f"row {stop - 1}"
        assert risk_row.newest(*known).tobytes() == risk[stop - 1].tobytes(), f"row {stop - 1}"
        if prepares:
            row.prepare(*known)
            risk_row.prepare(*known)


def test_bars_are_read_from_the_anchor_once_a_period_and_ahead_of_it(monkeypatch):
    """Whatever is opened is opened between bars: three days of 26 bars and a first one."""
    opened = []
    line = live_module._Line

    def opening(values, anchor, make):
        opened.append((values.shape[1], anchor))
        return line(values, anchor, make)

    monkeypatch.setattr(live_module, "_Line", opening)
    times, values = arrays(random_bars(INDEX["15m"], seed=5))
    row = live_row(INTRADAY)
    in_time = []
    for stop in range(10 * 26 + 1, 13 * 26 + 1):
        before = len(opened)
        row.newest(times[:stop], values[:, :stop])
        in_time.append(len(opened) - before)
        row.prepare(times[:stop], values[:, :stop])
    assert sum(in_time) == 1  # the very first
    # bars known, first bar read: each day's own anchor lies five days before it
    assert opened == [(261, 130), (261, 156), (287, 182), (313, 208)]


def test_a_number_that_is_none_is_left_to_the_batch():
    bars = random_bars(INDEX["15m"], seed=2, actions=False)
    bars.iloc[300, bars.columns.get_loc("high")] = np.nan
    times, values = arrays(bars)
    table = build_table(bars, INTRADAY, "15m").to_numpy()
    row = live_row(INTRADAY)
    for stop in range(295, 310):
        found = row.newest(times[:stop], values[:, :stop])
        assert found.tobytes() == table[stop - 1].tobytes(), f"row {stop - 1}"


@pytest.mark.parametrize("columns", [{"indicators": ["own_features:honest", "rsi_14"]}, "vix"])
def test_columns_of_a_users_own_and_of_the_vix_are_not_carried(columns):
    chosen = spec("1d", vix=True) if columns == "vix" else spec("1d", **columns)
    assert live_row(chosen) is None
