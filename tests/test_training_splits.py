"""Splits: windows by time, gaps that keep them apart, folds, and the hold-out's beginning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import NotEnoughData
from core.settings import Split
from training.splits import (
    Window,
    combinatorial,
    divide,
    gap_bars,
    paths,
    stop_of,
    walk_forward,
    worst_drawdown,
)

SPLIT = Split()  # 70 / 15 / 15, embargo 5, 126 for paper, folds from 40 %


def test_rows_are_divided_70_15_15_with_gaps_and_the_newest_kept_for_paper() -> None:
    timeline = divide(first_row=100, rows=1226, split=SPLIT, window=1)
    # 1226 - 126 - 100 = 1000 usable rows; a gap is 0 (window) + 1 (reward) + 5 (embargo) = 6.
    assert timeline.train == Window(100, 794)
    assert timeline.validation == Window(800, 950)
    assert timeline.holdout == Window(956, 1100)
    assert timeline.paper == Window(1100, 1226)
    assert timeline.research == Window(100, 950)


def test_the_gap_grows_with_the_window_an_observation_looks_back() -> None:
    assert gap_bars(SPLIT, window=1) == 6
    assert gap_bars(SPLIT, window=10) == 15


def test_the_hold_out_begins_after_what_the_champion_was_tuned_on() -> None:
    timeline = divide(100, 1226, SPLIT, window=1, champion_stop=1050)
    assert timeline.holdout == Window(1056, 1100)


def test_a_champion_tuned_on_everything_leaves_an_empty_hold_out() -> None:
    timeline = divide(100, 1226, SPLIT, window=1, champion_stop=1099)
    assert len(timeline.holdout) == 0


def test_a_champion_older_than_the_candidate_moves_nothing() -> None:
    assert divide(100, 1226, SPLIT, 1, champion_stop=400) == divide(100, 1226, SPLIT, 1)


def test_too_few_rows_are_refused_with_their_numbers() -> None:
    with pytest.raises(NotEnoughData, match="50 usable rows"):
        divide(100, 276, SPLIT, window=1)


def test_folds_expand_and_their_out_of_sample_rows_join() -> None:
    timeline = divide(0, 1126, SPLIT, window=1)  # research rows 0 … 850
    first, second = walk_forward(timeline, 2, SPLIT, window=1)
    # 40 % of 850 = 340; edges 340, 595, 850. Validation is 15/85 of what is known.
    assert first.out_of_sample == Window(340, 595)
    assert second.out_of_sample == Window(595, 850)
    assert first.validation == Window(275, 334)
    assert first.train == Window(0, 269)
    assert second.train.start == 0
    assert second.train.stop > first.train.stop


def test_too_many_folds_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="60 walk-forward folds"):
        walk_forward(divide(0, 1126, SPLIT, 1), 60, SPLIT, 1)


@given(
    rows=st.integers(3000, 6000),
    window=st.integers(1, 20),
    embargo=st.integers(0, 20),
    folds=st.integers(1, 5),
    champion=st.none() | st.integers(0, 6000),
)
def test_no_bar_is_in_samples_of_two_windows(
    rows: int, window: int, embargo: int, folds: int, champion: int | None
) -> None:
    split = Split(embargo_bars=embargo)
    timeline = divide(300, rows, split, window, champion)
    pairs = [(timeline.train, timeline.validation)]
    if len(timeline.holdout):
        pairs.append((timeline.validation, timeline.holdout))
    for fold in walk_forward(timeline, folds, split, window):
        pairs += [(fold.train, fold.validation), (fold.validation, fold.out_of_sample)]
        assert fold.out_of_sample.within(timeline.research)
    for earlier, later in pairs:
        last_bar_read = earlier.stop - 1 + 1  # the reward of its last decision
        first_bar_read = later.start - window + 1  # by the observation at its first row
        assert last_bar_read < first_bar_read
    assert timeline.holdout.stop <= timeline.paper.start
    if champion is not None and len(timeline.holdout):
        assert timeline.holdout.start > champion


def test_the_worst_fall_is_measured_from_the_running_peak() -> None:
    assert worst_drawdown(np.array([100.0, 120.0, 90.0, 130.0, 117.0])) == pytest.approx(0.25)


def test_a_time_becomes_the_row_after_it() -> None:
    time = np.array(["2020-01-02", "2020-01-03", "2020-01-06"], "datetime64[ns]")
    assert stop_of(time, np.datetime64("2020-01-03", "ns")) == 2
    assert stop_of(time, np.datetime64("2020-01-05", "ns")) == 2
    assert stop_of(time, np.datetime64("2021-01-05", "ns")) == 3


def test_six_groups_two_tested_give_fifteen_splits_and_five_paths() -> None:
    # López de Prado (2018), figures 12.1 and 12.2.
    splits = combinatorial(Window(100, 700), groups=6, tested=2, gap=6)
    assert len(splits) == 15
    assert splits[0].tested == (0, 1)
    assert splits[-1].tested == (4, 5)
    walks = paths(splits, 6)
    assert len(walks) == 5
    # The book's second path: groups 1 to 6 from splits 2, 6, 6, 7, 8 and 9, counted from 1.
    assert [split + 1 for split in walks[1]] == [2, 6, 6, 7, 8, 9]
    for group, column in enumerate(zip(*walks, strict=True)):
        assert len(set(column)) == 5  # every tested group is used once
        assert all(group in splits[split].tested for split in column)


def test_rows_beside_a_tested_group_are_known_to_nobody() -> None:
    splits = combinatorial(Window(100, 700), groups=6, tested=2, gap=6)
    middle = next(split for split in splits if split.tested == (1, 4))
    assert middle.tested_rows.tolist() == [*range(200, 300), *range(500, 600)]
    assert middle.known_rows.tolist() == [
        *range(100, 194), *range(306, 494), *range(606, 700)
    ]  # fmt: skip
    joined = splits[0]
    assert joined.known_rows.tolist() == list(range(306, 700))


def test_groups_that_a_gap_would_swallow_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="60 rows in 6 groups, 2 of them tested, with gaps"):
        combinatorial(Window(0, 60), groups=6, tested=2, gap=6)
