"""Drift: have the newest rows left what the model was trained on?

Owns the statistic, its calibration and the rule of when an alarm counts. Evidently measures and
draws; nothing here knows files of Ratchet, models or flows.

The statistic is the mean over columns of Evidently's normed Wasserstein distance: how many
training standard deviations the average feature has moved. Markets wander, so any fixed limit
flags nearly every window of real prices (Evidently's preset does). The threshold is therefore what
the windows of the training history itself reach, at the quantile asked for, each measured against
the rest of that history. Measured false alarms and power: ``tests/test_pipelines_drift.py``.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.errors import CorruptFile, NotEnoughData
from core.settings import Monitor

Array = npt.NDArray[np.float64]
LEAST_NORM = 0.001  # Evidently divides by the reference's deviation, never by less
NAMED_COLUMNS = 5  # of the columns that moved furthest, in messages


@dataclass(frozen=True, slots=True)
class AlarmHistory:
    """What one check leaves for the next; a few words of JSON."""

    alarms_in_a_row: int = 0
    newest_bar: str | None = None  # of the window judged last, ISO 8601
    last_drift: str | None = None  # when drift was last reported, ISO 8601
    model: str | None = None  # version the alarms speak of

    def of_model(self, model: str) -> "AlarmHistory":
        """Return this history for another version: alarms start anew, the cool-down goes on."""
        if self.model == model:
            return self
        return AlarmHistory(last_drift=self.last_drift, model=model)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "AlarmHistory":
        """Read ``to_json``; raise ``CorruptFile`` when it is none."""
        try:
            history = cls(**json.loads(text))
            if history.last_drift is not None:
                datetime.fromisoformat(history.last_drift)
        except (ValueError, TypeError) as error:
            raise CorruptFile(f"drift history cannot be read ({error}); delete it") from error
        return history


@dataclass(frozen=True, slots=True)
class DriftReport:
    """The answer of one check."""

    drift: bool  # enough alarms in a row, not cooling down: retrain
    alarm: bool  # this window is beyond the threshold
    statistic: float  # mean distance of a column, training standard deviations
    threshold: float
    columns: tuple[tuple[str, float], ...]  # distance of every column, furthest first
    first_bar: str  # of the window, ISO 8601
    newest_bar: str
    reasons: tuple[str, ...]  # sentences for a person
    history: AlarmHistory  # give it to the next check


def check_drift(
    training: pd.DataFrame,
    recent: pd.DataFrame,
    settings: Monitor,
    now: datetime,
    history: AlarmHistory,
    html: Path | None = None,
) -> DriftReport:
    """Judge the newest ``window_bars`` rows of ``recent`` against the ``training`` rows.

    Both are feature tables (unscaled, no NaN, same columns, time index). ``html``: where to save
    Evidently's report. Raises ``NotEnoughData`` where either is too short for the window.
    """
    window = settings.window_bars
    _require_rows(training, recent, window)
    reference, current = _standardised(training, recent.iloc[-window:])
    threshold = calibrate(reference.to_numpy(), window, settings.threshold_quantile)
    scores = measure(reference, current, threshold, html)
    statistic = float(np.mean(list(scores.values())))
    columns = tuple(sorted(scores.items(), key=lambda item: -item[1]))
    newest = current.index[-1].isoformat()
    alarm = statistic > threshold
    after, drift, said = _decide(alarm, newest, settings, now, history)
    moved = ", ".join(f"{name} {score:.2f}" for name, score in columns[:NAMED_COLUMNS])
    found = (
        f"the average feature of the newest {window} bars lies {statistic:.2f} training standard "
        f"deviations away, {'above' if alarm else 'within'} the threshold of {threshold:.2f}; "
        f"furthest: {moved}"
    )
    return DriftReport(
        drift=drift,
        alarm=alarm,
        statistic=statistic,
        threshold=threshold,
        columns=columns,
        first_bar=current.index[0].isoformat(),
        newest_bar=newest,
        reasons=(found, said),
        history=after,
    )


def measure(
    reference: pd.DataFrame, current: pd.DataFrame, threshold: float, html: Path | None = None
) -> dict[str, float]:
    """Return Evidently's normed Wasserstein distance of every column, and save its report.

    ``threshold`` marks columns as drifted in the report; it changes no distance.
    """
    # Heavy, and needed only where drift is measured.
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import DriftedColumnsCount, ValueDrift

    names = list(reference.columns)
    definition = DataDefinition(numerical_columns=names)
    tables = [
        Dataset.from_pandas(table.reset_index(drop=True), data_definition=definition)
        for table in (current, reference)
    ]
    how: dict[str, Any] = {"method": "wasserstein", "threshold": threshold}
    metrics = [
        DriftedColumnsCount(columns=names, **how),
        *(ValueDrift(column=name, **how) for name in names),
    ]
    snapshot = Report(metrics).run(*tables)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        snapshot.save_html(str(html))
    return {
        metric["config"]["column"]: float(metric["value"])
        for metric in snapshot.dict()["metrics"]
        if "column" in metric["config"]
    }


def calibrate(reference: Array, window: int, quantile: float) -> float:
    """Return what the windows of the history (m, d) reach at ``quantile``.

    Each of the m - window + 1 windows is measured against the history without it. Leaving a
    window out stretches the difference of the two distributions by exactly m / (m - window).
    """
    m = len(reference)
    scores = np.mean(
        [window_distances(column, window) for column in np.ascontiguousarray(reference.T)], axis=0
    )
    return float(np.quantile(scores, quantile) * m / (m - window))


def window_distances(values: Array, window: int) -> Array:
    """Return the normed Wasserstein distance of every window of (m,) to all of it, (m - w + 1,).

    The number Evidently computes for each, from ranks instead of m sorts: W = the integral over u
    of |Q(u) - Q_window(u)|. Q_window is constant between j / w and (j + 1) / w, and crosses Q at
    the rank of its j-th value; the integral C of Q is one cumulative sum.
    """
    m = len(values)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    rank = np.empty(m, dtype=np.int64)
    rank[order] = np.arange(m)
    levels = np.arange(m + 1) / m
    integral = np.concatenate(([0.0], np.cumsum(ordered))) / m  # C(0), C(1 / m) … C(1)
    edges = np.arange(window + 1) / window
    at_edges = np.interp(edges, levels, integral)
    ranks = np.sort(np.lib.stride_tricks.sliding_window_view(rank, window), axis=1)
    level, reached = levels[ranks], integral[ranks]
    low, high = level < edges[:-1], level > edges[1:]
    cut = np.where(low, edges[:-1], np.where(high, edges[1:], level))
    at_cut = np.where(low, at_edges[:-1], np.where(high, at_edges[1:], reached))
    # Left of the cut Q is below the window's value, right of it above.
    above = at_edges[1:] + at_edges[:-1] - 2.0 * at_cut
    below = 2.0 * cut - edges[:-1] - edges[1:]
    distances: Array = (above + ordered[ranks] * below).sum(axis=1)
    return distances / max(float(np.std(values)), LEAST_NORM)


def _standardised(
    training: pd.DataFrame, recent: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put both in training standard deviations: smaller than LEAST_NORM would be lost."""
    middle, spread = training.mean(), training.std(ddof=0)
    spread = spread.where(spread > 1e-12 * middle.abs(), 1.0)
    return (training - middle) / spread, (recent - middle) / spread


def _require_rows(training: pd.DataFrame, recent: pd.DataFrame, window: int) -> None:
    if list(training.columns) != list(recent.columns):
        raise NotEnoughData("drift: newest and training rows have different columns; retrain")
    if len(training) < 4 * window:
        raise NotEnoughData(
            f"drift: {len(training)} training rows, a window of {window} needs {4 * window}"
        )
    if len(recent) < window:
        raise NotEnoughData(f"drift: {len(recent)} newest rows, the window needs {window}")
    if not np.isfinite(training.to_numpy()).all() or not np.isfinite(recent.to_numpy()).all():
        raise NotEnoughData("drift: rows with NaN; give rows after the warm-up")


def _decide(
    alarm: bool, newest: str, settings: Monitor, now: datetime, history: AlarmHistory
) -> tuple[AlarmHistory, bool, str]:
    """Apply alarms in a row and the cool-down; return the next history, the verdict, why."""
    seen_before = newest == history.newest_bar
    if not alarm:
        return replace(history, alarms_in_a_row=0, newest_bar=newest), False, "no alarm"
    count = history.alarms_in_a_row + (0 if seen_before else 1)
    after = replace(history, alarms_in_a_row=count, newest_bar=newest)
    cool = _cooling_until(settings, history)
    if cool is not None and now < cool:
        return after, False, f"cooling down until {cool.isoformat()} after the last drift"
    if count < settings.alarms_in_a_row:
        return after, False, f"alarm {count} of {settings.alarms_in_a_row} in a row"
    after = replace(after, alarms_in_a_row=0, last_drift=now.astimezone(UTC).isoformat())
    return after, True, f"{count} alarms in a row: retrain"


def _cooling_until(settings: Monitor, history: AlarmHistory) -> datetime | None:
    if history.last_drift is None:
        return None
    return datetime.fromisoformat(history.last_drift) + timedelta(days=settings.cooldown_days)
