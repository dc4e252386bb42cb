"""Reproduce: rebuild a registered version from its card and say whether the same weights come out.

Owns what is rebuilt and what is compared. Data, settings, seeds, rows and a warm start are taken
from the card and nowhere else, and the whole study is run again. Registers nothing.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import DataError, RegistryError
from core.home import Home
from core.progress import Progress, Report, silent
from core.rules import Rules
from core.settings import Params, parse_params
from features.dataset import Dataset
from pipelines import experience, lineage, record
from pipelines.dataset import load_dataset, load_training_dataset
from registry import models
from registry.baselines import BASELINES, make_baseline
from registry.bundle import Bundle, load_bundle
from registry.models import Version
from training.course import Course
from training.lesson import Trained
from training.splits import divide, stop_of
from training.study import Plan, close_study, search
from training.workers import require_trained, train_all


@dataclass(frozen=True, slots=True)
class Compared:
    """One thing of the version, as registered and as rebuilt."""

    what: str
    registered: str
    rebuilt: str

    @property
    def same(self) -> bool:
        return self.registered == self.rebuilt

    def __str__(self) -> str:
        if self.same:
            return f"{self.what:<8} same       {self.registered}"
        return f"{self.what:<8} DIFFERENT  registered {self.registered}, rebuilt {self.rebuilt}"


@dataclass(frozen=True, slots=True)
class Reproduced:
    """What rebuilding a version came to."""

    agent: str
    version: int
    compared: tuple[Compared, ...]

    @property
    def passed(self) -> bool:
        """Whether the model is the same; the commit may be another one."""
        return all(one.same for one in self.compared if one.what != "commit")

    def __str__(self) -> str:
        head = f"{self.agent} version {self.version}: "
        head += "reproduced" if self.passed else "NOT reproduced"
        return "\n".join([head, *(f"  {one}" for one in self.compared)])


def run(home: Home, agent: str, number: int, *, report: Report = silent) -> Reproduced:
    """Rebuild a version and compare.

    Raises ``DataError`` where the bars, the live experience or the parent it was made from are not
    there any more, ``RegistryError`` where the card does not say how it was made.
    """
    version = models.version(home, agent, number)
    bundle = load_bundle(models.fetch(home, version).folder, version.bundle_sha256)
    commit = Compared("commit", bundle.card.commit, lineage.git_commit())
    if bundle.card.algorithm in BASELINES:
        return Reproduced(agent, number, (commit, _policy(bundle, _baseline(bundle))))
    params = params_of(bundle, version)
    report(Progress("data", 0.0, f"{agent}: looking for the bars of version {number}"))
    traded = traded_as_then(home, params, bundle, version)
    course = _course(home, params, bundle, traded)
    trial, trained = _retrained(home, course, bundle, report)
    weights = version.tags.get("weights_sha256", "")
    compared = (
        commit,
        Compared("dataset", bundle.card.dataset_sha256, traded.sha256),
        Compared("trial", str(bundle.card.trial), str(trial)),
        Compared("weights", weights, trained.weights_sha256),
        _policy(bundle, trained.policy_onnx),
    )
    return Reproduced(agent, number, compared)


def params_of(bundle: Bundle, version: Version) -> Params:
    """Return the settings on the card; raise ``RegistryError`` where there are none."""
    content = {key: value for key, value in bundle.card.params.items() if key != "run"}
    if not content or "run" not in bundle.card.params:
        raise RegistryError(
            f"{version.agent} version {version.number}: its card does not hold the settings it was "
            "made with, so it cannot be rebuilt; it was not made by `ratchet retrain`"
        )
    return parse_params({**content, "demo": {"agents": []}}, f"card of version {version.number}")


def traded_as_then(home: Home, params: Params, bundle: Bundle, version: Version) -> Dataset:
    """Return the dataset up to the bar at which its hash is the card's."""
    wanted, card = bundle.card.dataset_sha256, bundle.card
    now = load_dataset(home, params, card.agent, bundle.spec)
    first = now.first_row + 1
    if card.train_last is not None:
        first = stop_of(now.market.time, np.datetime64(card.train_last[:19]))
    for stop in range(len(now), first - 1, -1):
        then = now if stop == len(now) else now.rows(0, stop)
        if then.sha256 == wanted:
            return then
    raise DataError(
        f"{card.agent} version {version.number}: no part of today's {len(now)} bars of "
        f"{now.symbol} hashes to {wanted[:12]}, on which it was trained; a vendor restated them, "
        "or validation or features changed since. Check out its commit and the manifests of its "
        "dvc.lock, and run `dvc repro`"
    )


def _course(home: Home, params: Params, bundle: Bundle, traded: Dataset) -> Course:
    """Return what the version learned from."""
    card = bundle.card
    whole = load_training_dataset(home, params, card.agent, bundle.spec)
    stop = stop_of(whole.market.time, traded.market.time[-1])
    learned = whole if stop == len(whole) else whole.rows(0, stop)
    timeline = divide(learned.first_row, len(learned), params.split, params.environment.window)
    rules = Rules.of(params.account, params.costs, params.risk_for(card.agent))
    told: Mapping[str, Any] = card.params["run"]
    lived = experience.gather(home, params, card.agent, traded).transitions
    course = Course(
        card.agent, params, learned, timeline, rules, told["effort"], _parent(home, bundle), lived
    )
    then = told["experience"]["replayed"]
    if course.replayed != then:
        raise DataError(
            f"{card.agent}: it learned from {then} live transitions, the ledger {home.ledger} "
            f"gives {course.replayed} now; restore the ledger of {card.created_at}"
        )
    return course


def _parent(home: Home, bundle: Bundle) -> bytes | None:
    """Return the weights a warm start went on from; None where it began anew."""
    card = bundle.card
    if card.parent is None:
        return None
    for one in models.versions(home, card.agent):
        if one.bundle_sha256 == card.parent:
            kept = models.run_file(home, one, record.WEIGHTS)
            return kept or load_bundle(models.fetch(home, one).folder).policy_onnx
    raise DataError(
        f"{card.agent}: it went on from the bundle {card.parent[:12]}, which the registry has not"
    )


def _retrained(home: Home, course: Course, bundle: Bundle, report: Report) -> tuple[int, Trained]:
    """Run study and seed again; return the chosen trial and what its seed learned."""
    told = bundle.card.params["run"]
    first_seed, settings = told["first_seed"], course.params.search
    # A name of its own: these trials look for nothing, and must not count as the agent's.
    name = f"{course.agent} reproduced"
    plan = Plan(name, course.identity, told["trials"], course.space, settings, first_seed)
    searched = search(home, plan, lambda values: course.lesson(values, first_seed), report=report)
    close_study(home, searched.study)
    report(Progress("train", 0.0, f"seed {bundle.card.seed}"))
    lesson = course.lesson(searched.best.hyperparameters, bundle.card.seed)
    trained = require_trained(train_all(home, [lesson]), "training")[0]
    report(Progress("train", 1.0, f"seed {bundle.card.seed} complete"))
    return searched.best.number, trained


def _baseline(bundle: Bundle) -> bytes:
    card = bundle.card
    return make_baseline(card.algorithm, bundle.spec, bundle.scaler, card.seed)


def _policy(bundle: Bundle, rebuilt: bytes) -> Compared:
    return Compared(
        "policy",
        hashlib.sha256(bundle.policy_onnx).hexdigest(),
        hashlib.sha256(rebuilt).hexdigest(),
    )
