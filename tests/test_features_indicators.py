import inspect
import re

import numpy as np
import pytest
import talib
from features_kit import constant_bars, daily_index, random_bars

from features import indicators
from features.adjust import adjust_forward
from features.indicators import INDICATORS, LONGEST_LOOK_BACK, VIX_INDICATORS, Prices


def computed(bars) -> dict[str, np.ndarray]:
    prices = Prices.of(adjust_forward(bars))
    return {name: function(prices) for name, function in INDICATORS.items()}


def test_the_catalogue_is_as_wide_as_promised():
    used = set(re.findall(r"\bta\.([A-Z][A-Z0-9_]+)\(", inspect.getsource(indicators)))
    assert used <= set(talib.get_functions())
    assert len(used) >= 25
    assert len(INDICATORS) >= 44
    asked = ["rsi_14", "macd", "ema_10", "ema_50", "sma_20", "atr_14", "volatility_20"]
    assert set(asked) <= set(INDICATORS)
    assert not set(INDICATORS) & set(VIX_INDICATORS)


def test_known_columns_by_hand():
    bars = random_bars(daily_index(120), seed=3, actions=False)
    found = computed(bars)
    close, volume = bars["close"].to_numpy(), bars["volume"].to_numpy()
    assert found["return_5"][-1] == pytest.approx(close[-1] / close[-6] - 1)
    assert found["sma_20"][-1] == pytest.approx(close[-1] / close[-20:].mean() - 1)
    changes = close[1:] / close[:-1] - 1
    assert found["volatility_20"][-1] == pytest.approx(changes[-20:].std())
    average = volume[-20:].mean()
    assert found["volume_20"][-1] == pytest.approx(
        np.tanh(np.log(volume[-1] / average) / 2)  # a log-ratio, squashed
    )
    weighted = (close[-20:] * volume[-20:]).sum() / volume[-20:].sum()
    assert found["volume_weighted_20"][-1] == pytest.approx(close[-1] / weighted - 1)
    high, low = bars["high"].to_numpy()[-60:].max(), bars["low"].to_numpy()[-60:].min()
    assert found["range_position_60"][-1] == pytest.approx(2 * (close[-1] - low) / (high - low) - 1)


def test_rsi_and_ema_by_hand():
    close = np.array([10.0, 11.0, 10.5, 10.5, 12.0])
    bars = constant_bars(daily_index(5), 1.0, 0.0)
    bars = bars.assign(open=close, high=close, low=close, close=close)
    prices = Prices.of(adjust_forward(bars))
    # Wilder, 2 bars: mean gain (1, 0) / 2 = .5, mean loss .25; then .25 and .125; then .875, .0625.
    expected = 0.875 / (0.875 + 0.0625) * 2 - 1
    assert INDICATORS["rsi_2"](prices)[-1] == pytest.approx(expected)
    bars = bars.iloc[[0] * 9 + [1] + [2]].set_index(daily_index(11))
    prices = Prices.of(adjust_forward(bars))
    average = (9 * 10 + 11) / 10
    average += (10.5 - average) * 2 / 11
    assert INDICATORS["ema_10"](prices)[-1] == pytest.approx(10.5 / average - 1)


def test_every_column_is_finite_after_the_longest_look_back():
    for name, values in computed(random_bars(daily_index(400), seed=4)).items():
        assert np.isfinite(values[LONGEST_LOOK_BACK:]).all(), name
        assert values.dtype == np.float64, name


def test_columns_are_scale_free_to_the_last_bit():
    bars = random_bars(daily_index(400), seed=5)
    prices = ["open", "high", "low", "close", "dividend"]
    scaled = bars.assign(**{name: bars[name] * 8.0 for name in prices}, volume=bars.volume * 4.0)
    before, after = computed(bars), computed(scaled)
    different = [n for n in INDICATORS if before[n].tobytes() != after[n].tobytes()]
    assert different == []


@pytest.mark.parametrize("volume", [0.0, 1000.0])
def test_constant_prices_stay_finite(volume):
    for name, values in computed(constant_bars(daily_index(200), 100.1, volume)).items():
        assert np.isfinite(values[LONGEST_LOOK_BACK:]).all(), name
        assert np.abs(values[LONGEST_LOOK_BACK:]).max() <= 10.0, name


def test_a_market_that_falls_asleep_stays_finite_and_small():
    awake = random_bars(daily_index(200), seed=6)
    asleep = constant_bars(daily_index(400), awake["close"].iloc[-1], 0.0)
    asleep.iloc[:200] = awake.to_numpy()
    for name, values in computed(asleep).items():
        assert np.isfinite(values[LONGEST_LOOK_BACK:]).all(), name
        assert np.abs(values[300:]).max() <= 10.0, name


def test_vix_columns_by_hand():
    vix = np.linspace(10.0, 40.0, 150)
    found = {name: function(vix)[-1] for name, function in VIX_INDICATORS.items()}
    assert found["vix_level"] == pytest.approx(0.4)
    assert found["vix_change_5"] == pytest.approx(40.0 / vix[-6] - 1)
    assert found["vix_sma_20"] == pytest.approx(40.0 / vix[-20:].mean() - 1)
