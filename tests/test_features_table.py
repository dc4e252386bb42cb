import hashlib
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from features_kit import constant_bars, daily_index, intraday_index, random_bars, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BadBars, NotEnoughData
from features import table as table_module
from features.anchor import history_start
from features.indicators import INDICATORS, LONGEST_LOOK_BACK, VERSION, Indicator, as_is, shifted
from features.table import build_row, build_table, risk_columns, risk_row
from sources.bundled import Bundled

DAILY = spec("1d")
INTRADAY = spec("15m", anchor_sessions=5)
no_luck = settings(deadline=None, derandomize=True, max_examples=40)


def bits(values) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float64).view(np.int64)


def differing(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """Columns of two tables that differ in any bit (a NaN equals itself)."""
    return [c for c in before if not np.array_equal(bits(before[c]), bits(after[c]))]


@no_luck
@given(seed=st.integers(0, 10**6), rows=st.lists(st.integers(0, 1299), min_size=8, max_size=8))
def test_a_daily_row_computed_while_trading_has_the_bytes_of_the_table(seed, rows):
    bars = random_bars(daily_index(1300), seed)
    table = build_table(bars, DAILY, "1d").to_numpy()
    for row in rows:
        live = build_row(bars.iloc[: row + 1], DAILY, "1d")
        assert live.tobytes() == table[row].tobytes(), f"row {row}"


@no_luck
@given(seed=st.integers(0, 10**6), rows=st.lists(st.integers(0, 519), min_size=8, max_size=8))
def test_an_intraday_row_computed_while_trading_has_the_bytes_of_the_table(seed, rows):
    bars = random_bars(intraday_index(20, 15), seed)
    table = build_table(bars, INTRADAY, "15m").to_numpy()
    risk = risk_columns(bars, INTRADAY, "15m").to_numpy()
    for row in rows:
        live = build_row(bars.iloc[: row + 1], INTRADAY, "15m")
        assert live.tobytes() == table[row].tobytes(), f"row {row}"
        assert risk_row(bars.iloc[: row + 1], INTRADAY, "15m").tobytes() == risk[row].tobytes()


@no_luck
@given(seed=st.integers(0, 10**6), row=st.integers(800, 1299))
def test_a_live_history_may_begin_at_the_anchor(seed, row):
    bars = random_bars(daily_index(1300), seed).iloc[: row + 1]
    trimmed = bars.iloc[history_start(bars.index, "1d", DAILY.anchor) :]
    assert len(trimmed) < len(bars)
    assert build_row(trimmed, DAILY, "1d").tobytes() == build_row(bars, DAILY, "1d").tobytes()
    live, full = risk_row(trimmed, DAILY, "1d"), risk_columns(bars, DAILY, "1d")
    assert live.tobytes() == full.iloc[-1].to_numpy().tobytes()


def changed_after(bars: pd.DataFrame, row: int) -> pd.DataFrame:
    """The same bars up to ``row``, another market (other splits too) afterwards."""
    other = random_bars(bars.index, seed=10_000 + row) * 3.0
    other["split_ratio"] = 1.0
    other.iloc[row + 5, other.columns.get_loc("split_ratio")] = 4.0
    return pd.concat([bars.iloc[: row + 1], other.iloc[row + 1 :]])


def look_ahead(bars: pd.DataFrame, row: int) -> set[str]:
    """Columns of features and risk that know at ``row`` what comes after it."""
    leaking = set()
    for future in (changed_after(bars, row), bars.iloc[: row + 1]):
        for build in (build_table, risk_columns):
            known = build(bars, DAILY, "1d").iloc[: row + 1]
            leaking |= set(differing(known, build(future, DAILY, "1d").iloc[: row + 1]))
    return leaking


@pytest.mark.parametrize("row", [130, 261, 400, 521, 640])
def test_no_column_knows_what_comes_after_its_row(row):
    assert look_ahead(random_bars(daily_index(700), seed=row), row) == set()


def test_a_planted_look_ahead_is_caught(monkeypatch):
    peeking = dict(INDICATORS) | {
        "return_1": Indicator(lambda p: shifted(p.returns[::-1])[::-1], as_is)
    }
    monkeypatch.setattr(table_module, "INDICATORS", peeking)
    assert look_ahead(random_bars(daily_index(300), seed=1), 200) == {"return_1"}


def test_only_the_warm_up_is_missing():
    table = build_table(random_bars(daily_index(900), seed=2), DAILY, "1d")
    missing = table.isna().any(axis=1).to_numpy()
    assert missing[:LONGEST_LOOK_BACK].all()
    assert not missing[LONGEST_LOOK_BACK:].any()
    assert list(table.columns) == list(INDICATORS)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 15, 31, 60, 99])
def test_short_histories_are_missing_rows_not_errors(length):
    bars = random_bars(daily_index(length), seed=3)
    assert build_table(bars, DAILY, "1d").shape == (length, len(DAILY.columns))
    assert risk_columns(bars, DAILY, "1d").shape == (length, 2)
    if length:
        assert np.isnan(build_row(bars, DAILY, "1d")).any()


def test_no_bars_make_no_row():
    with pytest.raises(NotEnoughData, match="no bars"):
        build_row(random_bars(daily_index(0), seed=1), DAILY, "1d")


def test_bars_of_another_interval_are_refused():
    with pytest.raises(BadBars, match="interval 15m, the feature spec is for 1d"):
        build_table(random_bars(daily_index(5), seed=1), DAILY, "15m")


def test_unordered_bars_are_refused():
    with pytest.raises(BadBars, match="increasing"):
        build_table(random_bars(daily_index(5), seed=1).iloc[::-1], DAILY, "1d")


def test_risk_columns_are_in_prices_as_traded():
    # Every day swings 2 % and ends where it began; a 4:1 split in the middle.
    bars = constant_bars(daily_index(300), 100.0, 1e6)
    bars.iloc[150:, :4] = 25.0
    bars["high"] *= 1.01
    bars["low"] *= 0.99
    bars.iloc[150, bars.columns.get_loc("split_ratio")] = 4.0
    risk = risk_columns(bars, DAILY, "1d")
    assert risk["atr"].iloc[149] == pytest.approx(2.0)
    assert risk["atr"].iloc[150] == pytest.approx(0.5)
    assert risk["volatility"].iloc[20:].abs().max() == 0.0


def test_volatility_is_annualised():
    bars = constant_bars(daily_index(60), 100.0, 1e6)
    close = 100.0 * np.cumprod(np.where(np.arange(60) % 2 == 0, 1.01, 0.99))
    bars = bars.assign(open=close, high=close, low=close, close=close)
    # Returns of +1 % and -1 % in turn deviate by 1 % from their mean of 0.
    assert risk_columns(bars, DAILY, "1d")["volatility"].iloc[-1] == pytest.approx(
        0.01 * np.sqrt(252)
    )


def test_vix_columns_come_from_closes_known_on_the_row():
    vix_spec = spec("1d", vix=True)
    bars = random_bars(daily_index(400), seed=4)
    vix = pd.Series(np.linspace(10, 40, 400), index=bars.index)
    table = build_table(bars, vix_spec, "1d", vix)
    assert table["vix_level"].iloc[-1] == pytest.approx(0.4)
    later = vix.copy()
    later.iloc[301:] = 80.0
    changed = build_table(bars, vix_spec, "1d", later)
    assert differing(table.iloc[:301], changed.iloc[:301]) == []
    live = build_row(bars.iloc[:301], vix_spec, "1d", later)
    assert live.tobytes() == table.iloc[300].to_numpy().tobytes()
    with pytest.raises(NotEnoughData, match="VIX"):
        build_table(bars, vix_spec, "1d")


def test_the_numbers_belong_to_this_version():
    """A change of any number needs a new features.indicators.VERSION, and a new digest here."""
    bars = random_bars(daily_index(600), seed=7)
    values = build_table(bars, DAILY, "1d").to_numpy()[-200:]
    text = "\n".join(f"{value:.6g}" for value in values.ravel())
    assert VERSION == 1
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "3524815ab94bfacc"


def test_the_given_bars_are_not_changed():
    bars = random_bars(daily_index(300), seed=8)
    copy = bars.copy(deep=True)
    build_table(bars, DAILY, "1d")
    build_row(bars, DAILY, "1d")
    risk_columns(bars, DAILY, "1d")
    pd.testing.assert_frame_equal(bars, copy)


@pytest.mark.parametrize("symbol", ["AAPL", "IBM", "MSFT", "GOOG", "GSPC", "IXIC", "IXIC3X"])
def test_real_bars_give_complete_rows_and_the_same_bytes_live(symbol):
    bars = Bundled().fetch(symbol, "1d", None, datetime(2026, 1, 1, tzinfo=UTC)).frame
    table = build_table(bars, DAILY, "1d").to_numpy()
    assert np.isfinite(table[LONGEST_LOOK_BACK:]).all()
    rows = np.random.default_rng(len(symbol)).integers(0, len(bars), 12)
    for row in (*rows, len(bars) - 1):
        assert build_row(bars.iloc[: row + 1], DAILY, "1d").tobytes() == table[row].tobytes()


def test_a_real_split_leaves_no_trace_in_returns():
    bars = Bundled().fetch("AAPL", "1d", None, datetime(2026, 1, 1, tzinfo=UTC)).frame
    table = build_table(bars, DAILY, "1d")
    day = bars.index[(bars["split_ratio"] == 2.0) & (bars.index > "2005")][0]
    assert str(day.date()) == "2005-02-28"
    assert bars.loc[day, "close"] < 0.55 * bars["close"].shift(1).loc[day]
    assert abs(table.loc[day, "return_1"]) < 0.02
