"""Compare: any versions of an agent side by side, with the baselines, on bars none was trained on.

Owns which bars those are: after everything that any of the versions was trained or tuned on.
Looking at them is written down, as a backtest's look is. The page is ``training/report.py``'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from core.calendar import bars_per_year
from core.errors import ConfigError, NotEnoughData
from core.home import Home
from core.rules import Rules
from core.settings import Params
from features.dataset import Dataset
from pipelines import contest
from pipelines.backtest import unseen_rows
from pipelines.dataset import load_dataset
from pipelines.judging import time_of
from registry import attempts, models
from registry.bundle import Bundle, load_bundle
from sources.files import write_whole
from training import report as reports
from training.splits import Window


@dataclass(frozen=True, slots=True)
class Compared:
    """Some versions and the baselines over the same bars."""

    agent: str
    versions: tuple[int, ...]
    first: datetime
    last: datetime
    bars: int
    contenders: dict[str, dict[str, float]]  # name -> measures, versions first
    report: Path  # standalone HTML


def run(
    home: Home, params: Params, agent: str, versions: Sequence[int], *, now: datetime
) -> Compared:
    """Run every version and the baselines over their common unseen bars and write the page.

    The newest ``split.paper_bars`` stay out. Raises ``ConfigError`` for fewer than two versions,
    ``UnknownVersion``, ``SpecMismatch``, or ``NotEnoughData`` where no bar is unseen by all.
    """
    numbers = tuple(dict.fromkeys(versions))
    if len(numbers) < 2:
        raise ConfigError(f"{agent}: compare needs two versions or more, found {list(numbers)}")
    fielded: dict[str, tuple[Bundle, Dataset]] = {}
    for number in numbers:
        found = models.version(home, agent, number)
        bundle = load_bundle(models.fetch(home, found).folder, found.bundle_sha256)
        name = f"version {number} ({bundle.card.algorithm})"
        fielded[name] = bundle, load_dataset(home, params, agent, bundle.spec)
    bundle, dataset = next(iter(fielded.values()))
    rows = _common(params, fielded)
    if len(rows) < 2:
        raise NotEnoughData(
            f"{agent}: no bars after everything that versions {', '.join(map(str, numbers))} were "
            "trained on, but those kept for the paper session; ingest newer ones"
        )
    first, last = time_of(dataset, rows.start), time_of(dataset, rows.stop - 1)
    attempts.record_look(home, agent, first, last, f"compare {now.isoformat()}", now)
    contenders = {name: (one, one.scaler, seen) for name, (one, seen) in fielded.items()}
    others = contest.baselines(dataset, bundle.scaler, params.gate.seed)
    rules = Rules.of(params.account, params.costs, params.risk_for(agent))
    results = contest.over({**contenders, **others}, rows, rules, params.account.cash)
    page = reports.Report(
        title=f"{agent}: versions {', '.join(map(str, numbers))} side by side",
        subtitle=f"{dataset.symbol}, {first:%Y-%m-%d} to {last:%Y-%m-%d}, {len(rows)} bars after "
        "everything that any of them was trained or tuned on",
        contenders=results,
        bars_per_year=bars_per_year(dataset.interval),
        facts={name: one.sha256 for name, (one, _) in fielded.items()} | {"made": now.isoformat()},
    )
    path = home.reports / agent / f"compare-{'-'.join(map(str, numbers))}.html"
    write_whole(path, reports.render(page).encode())
    measures = {name: dict(result.metrics) for name, result in results.items()}
    return Compared(agent, numbers, first, last, len(rows), measures, path)


def _common(params: Params, fielded: dict[str, tuple[Bundle, Dataset]]) -> Window:
    """Return the rows that no version has seen; every dataset has the same bars."""
    unseen = [unseen_rows(params, bundle, dataset) for bundle, dataset in fielded.values()]
    times = [dataset.market.time for _, dataset in fielded.values()]
    if any(not np.array_equal(time, times[0]) for time in times[1:]):
        raise ConfigError("compare: the versions look at bars of different times")
    stop = min(rows.stop for rows in unseen)
    return Window(min(max(rows.start for rows in unseen), stop), stop)
