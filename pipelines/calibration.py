"""Calibration: the whole pipeline on markets whose truth is known, to measure the gate.

    python -m pipelines.calibration [--histories 200] [--planted 6] [--strong 30] [--page FILE]

Owns which histories are run, the settings they share, and one result file per history, written
whole: killed at any point and called again, it goes on with the histories that lack one. A
history is retrained like any agent (features, study, seeds, folds, gate, registry, MLflow), in a
home of its own that is thrown away. Computes no statistic; see ``calibration_page``.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import CorruptFile, RatchetError, RegistryError
from core.home import PROJECT, Home
from core.masking import confidential, masked
from core.progress import Progress, Report
from core.settings import Params, load_params, parse_params
from pipelines import calibration_page, featurize, lineage, retrain
from pipelines.edges import EDGES, SHARPES
from pipelines.featurize import validated_path
from pipelines.histories import History
from registry import attempts, models
from registry.baselines import BASELINES
from registry.connection import connect
from registry.evidence import Evidence
from registry.gate import judge
from registry.rates import Rate
from sources.files import parquet_bytes, write_whole
from training import workers
from training.stress import capacity

AGENT, SYMBOL, SIZE = "history", "HISTORY", "calibration"
NOW = datetime(2025, 1, 2, tzinfo=UTC)  # after every made-up bar
QUARTER_BARS = 63
FIRST = 100  # number of the first history: on those before it the thresholds were chosen
FALSE_AT_MOST, FOUND_AT_LEAST = 0.05, 0.8  # of markets without an edge; of STRONG edges and more
STRONG = 2.0  # the edge a gate must find where no baseline has it
SURE = 0.99  # confidence at which results contradict either

# What differs from params.yaml: less work per history, and a longer hold-out.
CHANGES: Mapping[str, Any] = {
    "agents": {AGENT: {"symbol": SYMBOL, "schedule": "none"}},
    "demo": {"agents": []},
    "features": {
        "indicators": [
            *("return_1", "return_5", "macd", "rsi_14"),
            *("volatility_20", "range_position_60", "band_position"),
        ],
        "include_vix": False,
        "anchor_years": 1,
    },
    "split": {"train": 0.5, "validation": 0.15, "paper_bars": 0},
    "environment": {"accounts": 128, "episode_bars": 126},
    "ppo": {"steps": 60_000, "hidden": [32, 32]},
    "search": {
        "generation": 3,
        "reports": 3,
        "sizes": {SIZE: {"trials": 6, "seeds": 5, "folds": 2}},
    },
}


@dataclass(frozen=True, slots=True)
class Result:
    """What the pipeline made of one history."""

    history: History
    verdict: str
    promoted: bool  # as the registry has it: Production is the candidate
    failed: tuple[str, ...]  # tests, each once
    sharpe: float  # annual, of the candidate on the hold-out
    held_sharpe: float  # of buy & hold there
    rival: str  # the best of the baselines there
    rival_sharpe: float
    found_after_bars: int | None  # of the hold-out, judged quarter by quarter; None: never
    seconds: float  # of one processor

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Result":
        content = json.loads(text)
        content["history"] = History(**content["history"])
        content["failed"] = tuple(content["failed"])
        return cls(**content)


def settings(shipped: Params) -> Params:
    """Return the settings of every history: those of params.yaml and CHANGES."""
    content = shipped.model_dump(mode="json")
    for section, changes in CHANGES.items():
        merged = changes if section in ("agents", "demo") else content[section] | changes
        content[section] = merged
    return parse_params(content, "calibration")


def histories(without_edge: int, planted: int, strong: int = 0) -> list[History]:
    """Return markets without edge, half of each kind, and ``planted`` of every planted edge; at
    least ``strong`` where it is ``STRONG``."""
    half = (without_edge + 1) // 2
    made = [History("bootstrapped", FIRST + n) for n in range(half)]
    made += [History("randomised", FIRST + n) for n in range(without_edge - half)]
    return made + [
        History(kind, FIRST + n, sharpe)
        for kind in EDGES
        for sharpe in SHARPES
        for n in range(max(planted, strong) if sharpe == STRONG else planted)
    ]


def folder_of(home: Home, params: Params) -> Path:
    """Return where results lie: another commit or other settings are other results."""
    told = json.dumps([lineage.git_commit(), params.model_dump(mode="json")], sort_keys=True)
    return home.root / "calibration" / hashlib.sha256(told.encode()).hexdigest()[:12]


def run_one(history: History, folder: Path, params: Params) -> Result:
    """Retrain on one history in a home of its own, write the result and return it."""
    workers.train_here()
    began = time.process_time()
    with tempfile.TemporaryDirectory(prefix="ratchet-history-") as place:
        home = Home(Path(place))
        home.make(home.mlflow)
        (home.mlflow / "mlflow.db").write_bytes((folder / "mlflow.db").read_bytes())
        write_whole(validated_path(home, SYMBOL), parquet_bytes(history.bars()))
        featurize.run(home, params, SYMBOL)
        done = retrain.run(home, params, AGENT, size=SIZE, seed=history.number, now=NOW)
        version = models.version(home, AGENT, done.version)
        judgement = attempts.newest_verdict(home, version)
        reasons = () if judgement is None else judgement.report.reasons
        failed = dict.fromkeys(reason.test for reason in reasons if not reason.passed)
        rivals = {
            name: figures["sharpe"]
            for name, figures in done.contenders.items()
            if name in BASELINES
        }
        rival = max(rivals, key=lambda name: rivals[name])
        result = Result(
            history=history,
            verdict=done.verdict,
            promoted=models.alias(home, AGENT, "Production") == done.version,
            failed=tuple(failed),
            sharpe=done.contenders["candidate"]["sharpe"],
            held_sharpe=done.contenders["buy_and_hold"]["sharpe"],
            rival=rival,
            rival_sharpe=rivals[rival],
            found_after_bars=found_after(done.evidence, params) if history.edge else None,
            seconds=time.process_time() - began,
        )
    write_whole(folder / f"{history.name}.json", result.to_json().encode())
    return result


def found_after(evidence: Evidence, params: Params) -> int | None:
    """Return after how many hold-out bars the gate first promotes, looking once a quarter.

    Every earlier quarter's look counts against it, as in the registry.
    """
    bars = len(evidence.candidate)
    for look, stop in enumerate(range(QUARTER_BARS, bars + 1, QUARTER_BARS)):
        known = replace(first_bars(evidence, stop), looks=look)
        if judge(known, params.gate).passed:
            return stop
    return None


def first_bars(evidence: Evidence, bars: int) -> Evidence:
    """Return the evidence as it was after the first ``bars`` of the hold-out."""

    def cut(series: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        return {name: returns[:bars] for name, returns in series.items()}

    stress = evidence.stress
    if stress is not None:
        capital = cut(stress.capital)
        growth = {n: float(np.log1p(returns).sum()) for n, returns in capital.items()}
        stress = replace(
            stress,
            costs=cut(stress.costs),
            delayed=stress.delayed[:bars],
            capital=capital,
            capacity=capacity(growth),
        )
    return replace(
        evidence,
        candidate=evidence.candidate[:bars],
        champion=None if evidence.champion is None else evidence.champion[:bars],
        baselines=cut(evidence.baselines),
        seeds=evidence.seeds[:, :bars],
        stress=stress,
        market=None if evidence.market is None else evidence.market[:bars],
    )


def run(home: Home, params: Params, wanted: Sequence[History], report: Report) -> Iterator[Result]:
    """Yield the results of all ``wanted`` histories: those on disk, then the others as they end."""
    folder = home.make(folder_of(home, params))
    left = []
    for history in wanted:
        path = folder / f"{history.name}.json"
        if path.exists():
            yield read(path)
        else:
            left.append(history)
    if not left:
        return
    template = Home(folder / "template")
    if not (folder / "mlflow.db").exists():  # its migrations take seconds; once is enough
        connect(template)
        write_whole(folder / "mlflow.db", (template.mlflow / "mlflow.db").read_bytes())
    ended, began = len(wanted) - len(left), time.monotonic()
    task = partial(run_one, folder=folder, params=params)
    for done, result in enumerate(workers.each(home, task, left), start=1):
        seconds = (time.monotonic() - began) / done * (len(left) - done)
        text = (
            f"{ended + done} of {len(wanted)} histories: {result.history.name} {result.verdict}"
            f"; about {seconds / 60:.0f} min left"
        )
        report(Progress("histories", (ended + done) / len(wanted), text))
        yield result


def read(path: Path) -> Result:
    """Read a result; raise ``CorruptFile`` where it is none."""
    try:
        return Result.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptFile(f"{path}: is no result of a history ({error}); delete it") from error


def require_calibrated(results: Sequence[Result]) -> None:
    """Raise ``RegistryError`` where so many promotions, or so few, contradict what is promised."""
    without = [one.promoted for one in results if not one.history.edge]
    strong = [
        one.promoted
        for one in results
        for kind, edge in EDGES.items()
        if one.history.kind == kind and one.history.edge >= STRONG and not edge.owned
    ]
    false, found = Rate(sum(without), len(without)), Rate(sum(strong), len(strong))
    if false.interval(SURE)[0] > FALSE_AT_MOST:
        raise RegistryError(
            f"{false.times} of {false.count} markets without an edge were promoted, more than a "
            f"gate does that errs in {FALSE_AT_MOST:.0%}; see which tests let them pass"
        )
    if found.interval(SURE)[1] < FOUND_AT_LEAST:
        raise RegistryError(
            f"{found.times} of {found.count} planted edges of {STRONG:g} and more that no baseline "
            f"has were found, fewer than by a gate that finds {FOUND_AT_LEAST:.0%}; see which "
            "tests refused them"
        )


def _show(progress: Progress) -> None:
    sys.stdout.write(f"{progress.text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run what is asked for, print the outcome, and write it into a page if one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--histories", type=int, default=200, help="markets without an edge")
    parser.add_argument(
        "--planted", type=int, default=6, help="markets of every kind and size of edge"
    )
    parser.add_argument(
        "--strong", type=int, default=30, help=f"of every kind at a Sharpe ratio of {STRONG:g}"
    )
    parser.add_argument(
        "--check", action="store_true", help="fail where the rates contradict 5 %% and 80 %%"
    )
    parser.add_argument("--page", type=Path, help="Markdown page whose results are replaced")
    asked = parser.parse_args()
    try:
        home = Home.from_environment()
        params = settings(load_params(PROJECT / "params.yaml"))
        wanted = histories(asked.histories, asked.planted, asked.strong)
        results = list(run(home, params, wanted, _show))
        outcome = calibration_page.outcome(results, lineage.git_commit())
        sys.stdout.write(outcome)
        if asked.page is not None:
            calibration_page.write(asked.page, outcome, results)
        if asked.check:
            require_calibrated(results)
    except RatchetError as error:
        sys.stderr.write(f"error: {masked(str(error), confidential(os.environ))}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
