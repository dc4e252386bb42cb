import numpy as np
import pytest
from features_kit import daily_index, intraday_index, random_bars, spec

from features.table import build_table, risk_columns
from serving.history import FeedBar, History, Instrument

CASES = {
    "1d": (spec("1d"), daily_index(1100), 400, 3),  # grows past the room it began with
    "15m": (spec("15m", anchor_sessions=5), intraday_index(14, 15), 150, 3),
}


def bar_at(bars, row, instrument):
    return FeedBar(instrument, bars.index[row].to_pydatetime(), tuple(map(float, bars.iloc[row])))


@pytest.mark.parametrize("interval", CASES)
def test_the_newest_rows_of_a_growing_history_have_the_bytes_of_the_tables(interval):
    chosen, index, begin, stride = CASES[interval]
    bars = random_bars(index, seed=3)
    table = build_table(bars, chosen, interval).to_numpy()
    risk = risk_columns(bars, chosen, interval).to_numpy()
    instrument = Instrument("bundled", "X", interval)
    history = History(instrument, bars.iloc[:begin])
    for row in range(begin, len(bars)):
        history.append(bar_at(bars, row, instrument))
        if row % stride == 0:
            assert history.row(chosen).tobytes() == table[row].tobytes(), f"row {row}"
            assert history.risk(chosen).tobytes() == risk[row].tobytes(), f"row {row}"
    assert history.frame().equals(bars)


def test_no_indicator_can_alter_a_history():
    instrument = Instrument("bundled", "X", "1d")
    history = History(instrument, random_bars(daily_index(300), seed=1, actions=False))
    with pytest.raises(ValueError, match="read-only"):
        history.prices(1).close[0] = np.nan
