"""Backtest: any registered version beside the baselines, over bars it was not trained on.

Owns which bars those are and who stands beside it. Looking at them is written down: the gate counts
every look at a hold-out as one more trial.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from core.calendar import bars_per_year
from core.errors import NotEnoughData, UnknownVersion
from core.home import Home
from core.progress import Progress, Report, silent
from core.rules import Rules
from core.settings import Params
from features.dataset import Dataset
from pipelines import contest
from pipelines.dataset import load_dataset
from pipelines.judging import time_of
from registry import attempts, models
from registry.bundle import Bundle, load_bundle
from registry.models import ALIASES, Version
from sources.files import write_whole
from training import report as reports
from training.attribution import attribute
from training.splits import Window, divide, gap_bars, stop_of

PRODUCTION = "Production"


@dataclass(frozen=True, slots=True)
class Backtested:
    """What a version did on bars it had never seen."""

    agent: str
    version: int
    first: datetime
    last: datetime
    bars: int
    contenders: Mapping[str, Mapping[str, float]]  # name -> measures, the version first
    reports: Mapping[str, Path]


def run(
    home: Home,
    params: Params,
    agent: str,
    version: str = PRODUCTION,
    *,
    now: datetime,
    report: Report = silent,
) -> Backtested:
    """Backtest ``version`` (a number or an alias) after everything it was trained or tuned on.

    The newest ``split.paper_bars`` stay out. Raises ``UnknownVersion``, ``NotEnoughData``,
    ``SpecMismatch`` or ``ServiceUnavailable``.
    """
    found = _version(home, agent, version)
    bundle = load_bundle(models.fetch(home, found).folder, found.bundle_sha256)
    dataset = load_dataset(home, params, agent, bundle.spec)
    rows = unseen_rows(params, bundle, dataset)
    if len(rows) < 2:
        raise NotEnoughData(
            f"{agent} version {found.number}: no bars after {bundle.card.train_last}, the last it "
            "was trained on, but those kept for the paper session; ingest newer ones"
        )
    first, last = time_of(dataset, rows.start), time_of(dataset, rows.stop - 1)
    attempts.record_look(home, agent, first, last, f"backtest {now.isoformat()}", now)
    report(Progress("backtest", 0.0, f"{len(rows)} bars, version {found.number} and baselines"))
    rules = Rules.of(params.account, params.costs, params.risk_for(agent))
    name = f"version {found.number} ({bundle.card.algorithm})"
    fielded = {
        name: (bundle, bundle.scaler, dataset),
        **contest.baselines(dataset, bundle.scaler, params.gate.seed),
    }
    results = contest.over(fielded, rows, rules, params.account.cash)
    page = reports.Report(
        title=f"{agent}: backtest of version {found.number}",
        subtitle=f"{dataset.symbol}, {first:%Y-%m-%d} to {last:%Y-%m-%d}, {len(rows)} bars after "
        "everything the version was trained or tuned on",
        contenders=results,
        bars_per_year=bars_per_year(dataset.interval),
        facts={"bundle": found.bundle_sha256, "dataset": dataset.sha256, "made": now.isoformat()},
    )
    folder = home.reports / agent / f"version-{found.number}"
    html, trades = folder / "backtest.html", folder / "backtest-trades.csv"
    write_whole(html, reports.render(page).encode())
    write_whole(trades, results[name].trade_log().to_csv(index=False).encode())
    actions = folder / "backtest-actions.csv"
    write_whole(actions, attribute(results[name]).to_csv().encode())
    report(Progress("backtest", 1.0, "done"))
    return Backtested(
        agent=agent,
        version=found.number,
        first=first,
        last=last,
        bars=len(rows),
        contenders={who: dict(result.metrics) for who, result in results.items()},
        reports={"report": html, "trades": trades, "actions": actions},
    )


def unseen_rows(params: Params, bundle: Bundle, dataset: Dataset) -> Window:
    """Return the rows after a version's training, before those kept for paper.

    A baseline was never trained: it gets the hold-out that a candidate of today would get.
    """
    first = dataset.first_row
    paper = max(first, len(dataset) - params.split.paper_bars)
    last = bundle.card.train_last
    if last is None:
        return divide(first, len(dataset), params.split, params.environment.window).holdout
    used = stop_of(dataset.market.time, np.datetime64(last[:19]))
    gap = gap_bars(params.split, params.environment.window)
    return Window(min(max(used + gap, first), paper), paper)


def _version(home: Home, agent: str, named: str) -> Version:
    if named.isdigit():
        return models.version(home, agent, int(named))
    for alias in ALIASES:
        if alias.lower() == named.lower():
            return models.with_alias(home, agent, alias)
    raise UnknownVersion(
        f"{agent}: no version {named!r}; expected a number or one of {', '.join(ALIASES)}"
    )
