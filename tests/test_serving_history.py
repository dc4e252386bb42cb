import numpy as np
import pytest
from features_kit import daily_index, intraday_index, random_bars, spec

from features import live
from features.table import build_table, risk_columns
from serving.comparison import Histories, Lived
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


@pytest.mark.parametrize("asks", ["often", "seldom"])
def test_a_history_forgets_old_days_and_its_rows_keep_their_bytes(asks, monkeypatch):
    """Three days at first, five looked back: nine are kept, and at nineteen days all others go."""
    opened, whole = [], live._open
    monkeypatch.setattr(live, "_open", lambda *given: opened.append(1) or whole(*given))
    chosen, instrument = spec("15m", anchor_sessions=5), Instrument("bundled", "X", "15m")
    bars = random_bars(intraday_index(60, 15), seed=4)
    table = build_table(bars, chosen, "15m").to_numpy()
    risk = risk_columns(bars, chosen, "15m").to_numpy()
    history, day = History(instrument, bars.iloc[: 3 * 26]), 26
    known, in_time = [], 0
    for row in range(3 * day, len(bars)):
        history.append(bar_at(bars, row, instrument))
        before = len(opened)
        if row % (1 if asks == "often" else 13) == 0:
            assert history.row(chosen).tobytes() == table[row].tobytes(), f"row {row}"
            assert history.risk(chosen).tobytes() == risk[row].tobytes(), f"row {row}"
        in_time += len(opened) - before if row > 10 * day else 0
        history.prepare()
        assert len(history) == row + 1
        assert history.frame().equals(bars.iloc[row + 1 - len(history.frame()) : row + 1])
        known.append(len(history.frame()))
    if asks == "often":
        assert in_time == 0  # all that a bar needs is there before it
    assert max(known) == 18 * day
    assert min(known[18 * day :]) == 8 * day + 1  # eight days and the first bar of the nineteenth
    assert history.since_anchor(5).index[0].date() == bars.index[-6 * day].date()


def test_daily_bars_are_remembered_for_ever():
    bars, instrument = random_bars(daily_index(1100), seed=3), Instrument("bundled", "X", "1d")
    history = History(instrument, bars.iloc[:2])
    for row in range(2, len(bars)):
        history.append(bar_at(bars, row, instrument))
        history.prepare()
    assert history.frame().equals(bars)


def test_no_indicator_can_alter_a_history():
    instrument = Instrument("bundled", "X", "1d")
    history = History(instrument, random_bars(daily_index(300), seed=1, actions=False))
    with pytest.raises(ValueError, match="read-only"):
        history.prices(1).close[0] = np.nan


def test_what_shadows_know_of_the_bars_is_forgotten_too():
    bars, instrument = random_bars(intraday_index(12, 15), seed=4), Instrument("x", "X", "15m")
    history = History(instrument, bars.iloc[:26])
    known = Histories(history, history)
    for row in range(26, len(bars)):
        bar = bar_at(bars, row, instrument)
        known.hear(Lived("x", None, None, bar, bar, (), False, None, None))
    assert len(history) == len(bars)
    assert len(history.frame()) <= 4 * 26  # a day at first, nothing looked back: two are kept
