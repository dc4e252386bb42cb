"""Histories that forget: the numbers are those of histories that never do, or there are none."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import serving_kit as world
import timer_kit
from features_kit import intraday_index, random_bars, spec

from core.errors import SpecMismatch
from features.account import ACCOUNT_COLUMNS
from features.spec import spec_from
from features.table import build_table
from serving.agent import TradingAgent
from serving.briefing import history_of, of_history
from serving.history import FeedBar, History, Instrument
from serving.timer import parts_of

CHOSEN, INDEX, BEGIN = spec("15m", anchor_sessions=2), intraday_index(40, 15), 30


def kept_of(history: History) -> int:
    return len(history.frame())


def bar_at(bars: pd.DataFrame, row: int, instrument: Instrument) -> FeedBar:
    return FeedBar(instrument, bars.index[row].to_pydatetime(), tuple(map(float, bars.iloc[row])))


def grown(instrument: Instrument, bars: pd.DataFrame) -> History:
    """Return a history that began with one bar, and had no time yet to forget."""
    history = History(instrument, bars.iloc[:1])
    for row in range(1, len(bars)):
        history.append(bar_at(bars, row, instrument))
    return history


def lived() -> tuple[History, pd.DataFrame]:
    """Return a history that has forgotten, and every bar it ever had."""
    bars, instrument = random_bars(INDEX, seed=3), Instrument("bundled", "X", "15m")
    history = History(instrument, bars.iloc[:BEGIN])
    history.needs(CHOSEN.anchor)
    for row in range(BEGIN, len(bars)):
        history.append(bar_at(bars, row, instrument))
        history.prepare()
    return history, bars


def test_a_version_that_looks_further_back_has_its_rows_or_is_refused():
    history, bars = lived()
    refused = []
    for anchor in range(2, 12):
        further = spec("15m", anchor_sessions=anchor)
        table = build_table(bars, further, "15m").to_numpy()
        try:
            found = history.row(further)
        except SpecMismatch:
            refused.append(anchor)
        else:
            assert found.tobytes() == table[-1].tobytes(), f"anchor {anchor}"
    assert refused == list(range(refused[0], 12))
    assert refused[0] > 2 * CHOSEN.anchor
    assert history.row(CHOSEN).shape == (len(CHOSEN.columns),)


def test_what_was_said_to_be_needed_is_there_ever_after():
    """Rows before the newest as well, each from an anchor of its own."""
    bars, instrument = random_bars(INDEX, seed=5), Instrument("bundled", "X", "15m")
    table = build_table(bars, CHOSEN, "15m").to_numpy()
    history = History(instrument, bars.iloc[:BEGIN])
    before, checked = 90, 0
    history.needs(CHOSEN.anchor, before)
    for row in range(BEGIN, len(bars)):
        history.append(bar_at(bars, row, instrument))
        kept = kept_of(history)
        history.prepare()
        if kept_of(history) < kept:
            found = build_table(history.frame(), CHOSEN, "15m").to_numpy()[-before - 1 :]
            assert found.tobytes() == table[row - before : row + 1].tobytes(), f"row {row}"
            checked += 1
    assert checked >= 2


def test_a_copy_and_a_briefing_know_what_is_forgotten():
    history, _ = lived()
    for other in (history.copy(), history_of(of_history(history))):
        assert other.forgotten == history.forgotten
        with pytest.raises(SpecMismatch, match="restart the worker, which reads them again"):
            other.needs(30)
        other.needs(4)


def test_a_window_longer_than_what_is_kept_of_both_symbols_is_refused():
    signal, bars = lived()
    one = Instrument("bundled", "Y", "15m")
    traded = History(one, bars.iloc[-5:], forgotten=bars.index[-6].to_pydatetime())
    chosen = spec("15m", anchor_sessions=2)
    with pytest.raises(SpecMismatch, match="restart"):
        traded.holds(signal.frame().index[-3:], chosen)
    windowed = world.params(environment={"window": 9}, features={"anchor_sessions": 2})
    with pytest.raises(SpecMismatch, match="9 rows are looked back on"):
        signal.holds(signal.frame().index[-5:], spec_from(windowed, "15m", False))


def test_a_bar_that_grows_by_parts_does_so_in_a_history_that_forgets():
    """Sessions of minutes; the newest comes in parts of five seconds."""
    chosen = spec("1m", anchor_sessions=2)
    parts = list(parts_of(timer_kit.finer_bars(), Instrument("bundled", "SOLO", "1m", 5), "XNYS"))
    minutes = random_bars(intraday_index(9, 1, "2026-02-19"), seed=2)
    whole = timer_kit.whole_bars(timer_kit.finer_bars())
    known = pd.concat([minutes.loc[: whole.index[0]].iloc[:-1], whole])
    known = known.loc[~known.index.duplicated() & (known.index < parts[0].row)]
    instrument = parts[0].instrument
    forgets, never = grown(instrument, known), grown(instrument, known)
    forgets.needs(chosen.anchor)
    for part in parts:
        for history in (forgets, never):
            history.append(part)
        assert forgets.row(chosen).tobytes() == never.row(chosen).tobytes(), part.time
        assert forgets.risk(chosen).tobytes() == never.risk(chosen).tobytes(), part.time
        forgets.prepare()
    assert kept_of(forgets) < kept_of(never) == len(never) == len(forgets)
    assert forgets.newest == never.newest


def test_a_policy_that_looks_back_sees_the_same_in_a_history_that_forgets(tmp_path: Path):
    """A window of rolling-scaled rows; bars that nobody closes make it read the table again."""
    features = {"anchor_sessions": 2, "scaler": "rolling", "rolling_window_bars": 60}
    settings = timer_kit.settings(environment={"window": 3}, features=features)
    shelf = timer_kit.shelf_of(tmp_path, settings)
    bundle = shelf.load("quick", shelf.production("quick"))
    one = Instrument("bundled", "SOLO", "1m")
    bars = random_bars(intraday_index(13, 1, "2026-02-19"), seed=2, actions=False)
    begin = 12 * 390 - 150
    sees = []
    for forgetting in (True, False):
        history = grown(one, bars.iloc[:begin])
        agent = TradingAgent("quick", "1", bundle, history, history)
        seen = []
        for row in range(begin, begin + 200):
            history.append(bar_at(bars, row, one))
            if row % 20 < 2:
                continue  # a bar without its counterpart
            agent.see()
            seen.append(agent.decide_on(np.zeros((1, len(ACCOUNT_COLUMNS)), np.float32)))
            if forgetting:
                history.prepare()
        assert (kept_of(history) < len(history)) is forgetting
        sees.append([answer.observation for answer in seen])
    assert sees[0] == sees[1]
