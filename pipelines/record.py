"""The record: what a retraining writes down in MLflow, in the card and on disk.

Owns names and places of what is kept. Decides nothing.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from core.home import Home
from core.progress import Progress, Report
from core.settings import Params
from features.dataset import Dataset
from features.scaler import Scaler
from pipelines import experience, lineage
from pipelines.contest import Champion
from pipelines.experience import Experience
from registry import models
from registry.bundle import save_bundle
from registry.card import ActionSpace, Card
from registry.models import Version
from registry.tracking import Run
from registry.trials import Trials
from registry.verdict import GateReport
from sources.files import write_whole
from training import report as reports
from training.backtest import BacktestResult
from training.course import Course
from training.lesson import Metrics, Trained
from training.spaces import discrete_weights
from training.study import Trial

EQUITY = "equity"  # among a retraining's reports: growth of 1, a column per contender
WEIGHTS = "weights.npz"  # every network of the shipped seed: what a warm start continues from


@dataclass(frozen=True, slots=True)
class Work:
    """What every step of one retraining needs."""

    home: Home
    params: Params
    agent: str
    course: Course
    traded: Dataset
    lived: Experience
    champion: Champion
    run: Run
    now: datetime
    reason: str
    report: Report

    def say(self, stage: str, done: float, text: str) -> None:
        """Tell how far a stage has come."""
        self.report(Progress(stage, done, text))


def config(work: Work, trials: int, seeds: int, first_seed: int) -> dict[str, Any]:
    """Return params.yaml as it was, and what this run changed of it."""
    settings = work.params.model_dump(mode="json")
    settings["agents"] = {work.agent: settings["agents"][work.agent]}
    edits = {
        "trials": trials,
        "seeds": seeds,
        "first_seed": first_seed,
        "effort": work.course.effort,
        "warm_start": work.course.warm_start is not None,
        "reason": work.reason,
        "experience": work.lived.figures(work.params.costs.slippage_bps)
        | {"replayed": work.course.replayed},
    }
    return settings | {"run": edits}


def card(work: Work, algorithm: str, seed: int) -> Card:
    """Return the card of what this retraining made, before training rows and verdict."""
    return _card(work.home, work.params, work.agent, work.traded, algorithm, seed, work.now)


def baseline_card(
    home: Home, params: Params, agent: str, traded: Dataset, kind: str, now: datetime, seed: int = 0
) -> Card:
    """Return the card of a baseline: never trained, so no bar was ever used up."""
    return _card(home, params, agent, traded, kind, seed, now)


def _card(
    home: Home,
    params: Params,
    agent: str,
    traded: Dataset,
    algorithm: str,
    seed: int,
    now: datetime,
) -> Card:
    entry = params.agent(agent)
    short = params.account.allow_short
    discrete = entry.actions == "discrete"
    weights = discrete_weights(short)
    return Card(
        agent=agent,
        algorithm=algorithm,
        symbols=traded.market.symbols,
        signal_symbol=traded.signal_symbol,
        interval=traded.interval,
        action_space=ActionSpace(
            kind=entry.actions,
            weights=tuple(weights[weights == weights].tolist()) if discrete else (),
            low=-1.0 if short else 0.0,
        ),
        dataset_sha256=traded.sha256,
        commit=lineage.git_commit(),
        seed=seed,
        created_at=now.isoformat(),
        rules={
            "account": params.account.model_dump(mode="json"),
            "costs": params.costs.model_dump(mode="json"),
            "risk": params.risk_for(agent).model_dump(mode="json"),
        },
        dvc_lock_sha256=lineage.dvc_lock_sha256(home),
    )


def log_experience(work: Work) -> None:
    """Keep what the agent lived through, merged with history, on disk and with the run."""
    if not work.lived.live_bars:
        return
    path, sha256 = experience.write(work.home, work.agent, work.lived)
    work.run.log_file(path)
    work.run.set_tags({"experience_sha256": sha256})
    work.say("data", 1.0, f"{work.agent}: {work.lived}")


def log_trial(run: Run, trial: Trial) -> None:
    """Record one trial of the study as a child run, with its learning curve."""
    with run.child(f"trial {trial.number}", {"kind": "trial", "state": trial.state}) as child:
        child.log_params(trial.hyperparameters)
        log_curve(child, trial.curve)
        if trial.problem:
            child.set_tags({"problem": trial.problem})


def log_curve(run: Run, curve: Sequence[Metrics]) -> None:
    """Record a learning curve; figures that a report did not have are left out."""
    alike: dict[tuple[int, ...], dict[str, list[float]]] = {}  # of the same steps: one call
    for name in dict.fromkeys(name for point in curve for name in point):
        if name == "steps":
            continue
        known = [point for point in curve if name in point]
        steps = tuple(int(point["steps"]) for point in known)
        alike.setdefault(steps, {})[name] = [point[name] for point in known]
    for steps, curves in alike.items():
        run.log_curves(curves, steps)


def register(work: Work, trained: Trained, scaler: Scaler, card: Card, gate: GateReport) -> Version:
    """Save the bundle and make it a version; the weights stay with the run."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "bundle"
        save_bundle(folder, trained.policy_onnx, work.traded.spec, scaler, card)
        weights = Path(place) / WEIGHTS
        weights.write_bytes(trained.weights)
        work.run.log_file(weights)
        tags = {"weights_sha256": trained.weights_sha256}
        return models.register(work.home, work.agent, folder, gate, tags, work.run)


def facts(work: Work, version: Version, card: Card, study: str, ever: Trials) -> dict[str, str]:
    """Return the lineage that stands at the end of a report."""
    return {
        "version": f"{version.agent} {version.number}",
        "bundle": version.bundle_sha256,
        "algorithm": f"{card.algorithm}, seed {card.seed}, trial {card.trial} of study {study}",
        "trials ever run": str(ever),
        "trained and tuned on": f"{work.course.learned.symbol}, {card.train_first} to "
        f"{card.train_last}",
        "dataset": card.dataset_sha256,
        "dvc.lock": card.dvc_lock_sha256 or "datasets were not made by DVC",
        "commit": card.commit,
        "made": card.created_at,
        "reason": work.reason,
        "rules": json.dumps(card.rules),
    }


def write(
    work: Work, version: Version, page: reports.Report, gate: GateReport
) -> Mapping[str, Path]:
    """Write report and trade log under ``Home.reports``, and keep copies with the run."""
    folder = work.home.reports / work.agent / f"version-{version.number}"
    html, trades = folder / "report.html", folder / "trades.csv"
    write_whole(html, reports.render(page).encode())
    subject = next(iter(page.contenders.values()))
    write_whole(trades, subject.trade_log().to_csv(index=False).encode())
    equity = folder / "equity.csv"
    write_whole(equity, _growth(page.contenders).to_csv(index_label="time").encode())
    for path in (html, trades, equity):
        work.run.log_file(path)
    measures = {
        f"holdout_{name}": value for name, value in subject.metrics.items() if value == value
    }
    work.run.log_metrics(measures)
    work.run.set_tags({"gate_verdict": gate.verdict, "version": str(version.number)})
    return {"report": html, "trades": trades, EQUITY: equity}


def _growth(contenders: Mapping[str, BacktestResult]) -> pd.DataFrame:
    time = next(iter(contenders.values())).time
    growth = {name: result.equity / result.opening_cash for name, result in contenders.items()}
    return pd.DataFrame(growth, index=time)
