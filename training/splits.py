"""Splits: which rows a policy may learn from, be tuned on, be judged by, and never see.

Owns the arithmetic of time: train | gap | validation | gap | hold-out | paper, and walk-forward
folds and combinatorial splits inside the research rows. Knows neither learners nor files.

A *gap* is purge + embargo. An observation at row t holds rows t-window+1 … t; its decision is
filled at the open of t+1 and rewarded with the change of equity up to the close of
t + ``horizon``. Dropping ``window - 1 + horizon`` rows (the purge) therefore leaves no bar that
both a sample of the earlier window and one of the later window contain; the embargo adds
``embargo_bars`` on top, for returns that are correlated over a few bars.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from core.errors import NotEnoughData
from core.settings import Split

HORIZON_BARS = 1  # a decision is rewarded with the next bar's change of equity
CRASH = 0.20  # a fall of buy & hold from its peak that counts as a crash, fraction


@dataclass(frozen=True, slots=True)
class Window:
    """Rows ``start`` (included) to ``stop`` (excluded) of a dataset."""

    start: int
    stop: int

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def within(self, other: "Window") -> bool:
        return other.start <= self.start and self.stop <= other.stop


@dataclass(frozen=True, slots=True)
class Timeline:
    """Every row of a dataset, by what it may be used for."""

    train: Window
    validation: Window
    holdout: Window  # decides; after the last bar candidate or champion was trained or tuned on
    paper: Window  # newest bars: no training, tuning or judging ever reads them

    @property
    def research(self) -> Window:
        """Return what a search and the walk-forward folds may read."""
        return Window(self.train.start, self.validation.stop)


@dataclass(frozen=True, slots=True)
class Fold:
    """One step of a walk forward: learn, choose, then trade rows that come after both."""

    train: Window
    validation: Window
    out_of_sample: Window


def gap_bars(split: Split, window: int) -> int:
    """Return the rows dropped between two windows: purge (window, reward) and embargo."""
    return window - 1 + HORIZON_BARS + split.embargo_bars


def divide(
    first_row: int, rows: int, split: Split, window: int, champion_stop: int | None = None
) -> Timeline:
    """Divide rows ``first_row`` … ``rows`` - 1 by time.

    ``champion_stop`` is the row after the last one the Production model was trained or tuned on;
    the hold-out starts behind it, even if that leaves too few rows to decide anything.
    Raises ``NotEnoughData`` where train or validation would be empty.
    """
    gap = gap_bars(split, window)
    paper_start = max(first_row, rows - split.paper_bars)
    usable = paper_start - first_row
    train_stop = first_row + int(usable * split.train)
    validation_stop = train_stop + int(usable * split.validation)
    train = Window(first_row, train_stop - gap)
    validation = Window(train_stop, validation_stop)
    if len(train) < 2 * gap or len(validation) < 2 * gap:
        raise NotEnoughData(
            f"{usable} usable rows ({rows} less {first_row} of warm-up and {split.paper_bars} "
            f"kept for paper) give {len(train)} rows to train and {len(validation)} to validate; "
            f"need at least {2 * gap} each. Ingest more bars, or lower split.paper_bars"
        )
    used = max(validation_stop, champion_stop or 0)
    holdout = Window(min(used + gap, paper_start), paper_start)
    return Timeline(train, validation, holdout, Window(paper_start, rows))


def walk_forward(timeline: Timeline, folds: int, split: Split, window: int) -> tuple[Fold, ...]:
    """Return ``folds`` expanding-window folds whose out-of-sample rows join without overlap.

    The first ``split.first_fold`` of the research rows are never out of sample. Each fold's
    validation window keeps the proportion it has in the timeline.
    """
    gap = gap_bars(split, window)
    research = timeline.research
    first = research.start + int(len(research) * split.first_fold)
    edges = np.linspace(first, research.stop, folds + 1).astype(int)
    share = split.validation / (split.train + split.validation)
    made = []
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        known = start - gap  # rows before this one may teach
        cut = research.start + int((known - research.start) * (1 - share))
        fold = Fold(Window(research.start, cut - gap), Window(cut, known), Window(start, stop))
        if min(len(fold.train), len(fold.validation), len(fold.out_of_sample)) < 2 * gap:
            raise NotEnoughData(
                f"{folds} walk-forward folds over {len(research)} research rows are too short "
                f"({fold}); use fewer folds or more bars"
            )
        made.append(fold)
    return tuple(made)


@dataclass(frozen=True, slots=True)
class Combination:
    """One of the combinatorial splits: some groups of rows are tested, the others known."""

    tested: tuple[int, ...]  # groups
    known_rows: np.ndarray  # purged and embargoed beside every tested group
    tested_rows: np.ndarray


def combinatorial(rows: Window, groups: int, tested: int, gap: int) -> tuple[Combination, ...]:
    """Return every way to test ``tested`` of ``groups`` equal parts of ``rows``, in order.

    Combinatorial purged cross-validation: López de Prado (2018), Advances in Financial Machine
    Learning, section 12.4. ``gap`` (``gap_bars``) rows on either side of a tested part are known
    to nobody. Raises ``NotEnoughData`` where a part would be no longer than the two gaps.
    """
    edges = np.linspace(rows.start, rows.stop, groups + 1).astype(int)
    if np.diff(edges).min() <= 2 * gap or not 0 < tested < groups:
        raise NotEnoughData(
            f"{len(rows)} rows in {groups} groups, {tested} of them tested, with gaps of {gap}: "
            "a group must be longer than two gaps, and some must be known; use fewer groups"
        )
    group = np.repeat(np.arange(groups), np.diff(edges))
    place = np.arange(rows.start, rows.stop)
    made = []
    for chosen in combinations(range(groups), tested):
        is_tested = np.isin(group, chosen)
        near = np.convolve(is_tested, np.ones(2 * gap + 1), mode="same") > 0.5
        made.append(Combination(chosen, place[~near], place[is_tested]))
    return tuple(made)


def paths(splits: Sequence[Combination], groups: int) -> tuple[tuple[int, ...], ...]:
    """Assemble the tested groups of all ``splits`` into whole walks over the rows.

    A path names, group by group, the split whose test it takes; every tested group is used once.
    Of C(N, k) splits there are C(N, k) k / N paths (the same source, section 12.4.1).
    """
    tests = [[n for n, split in enumerate(splits) if g in split.tested] for g in range(groups)]
    return tuple(zip(*tests, strict=True))


def worst_drawdown(price: np.ndarray) -> float:
    """Return the deepest fall from a running peak, as a fraction; ``price`` is (T,), no NaN."""
    return float(np.max(1.0 - price / np.maximum.accumulate(price)))


def stop_of(time: np.ndarray, last_used: np.datetime64) -> int:
    """Return the row after ``last_used`` on the clock ``time`` (T,) datetime64."""
    return int(np.searchsorted(time, last_used, side="right"))
