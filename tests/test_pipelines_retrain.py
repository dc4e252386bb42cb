"""Retraining, end to end on a small planted market: real Ray, RLlib, Optuna, MLflow and gate."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import ray
from retrain_kit import FOLDS, SEEDS, TRIALS, home_with_data, settings
from study_kit import trials_told

from core.errors import ConfigError, DataError, FutureLeak
from core.home import Home
from core.progress import Progress
from core.settings import Params
from pipelines import compare, contest, featurize, retrain
from pipelines.dataset import load_dataset, load_training_dataset
from pipelines.retrain import Retrained
from registry import attempts, models, promotion
from registry.bundle import Bundle, load_bundle
from registry.connection import connect
from training.course import Course, median_seed
from training.learn import returns_of
from training.lesson import Trained
from training.splits import divide, walk_forward

NOW = datetime(2024, 3, 2, 21, tzinfo=UTC)


class Interrupted(Exception):
    """What ends a retraining in the middle here."""


@dataclass(frozen=True)
class World:
    """What a first retraining, interrupted and repeated, and a second one left behind."""

    home: Home
    params: Params
    heard: list[Progress]
    first: Retrained
    second: Retrained

    def bundle(self, done: Retrained) -> Bundle:
        version = models.version(self.home, "planted", done.version)
        return load_bundle(models.fetch(self.home, version).folder)


def again(home: Home, params: Params, now: datetime, **options: Any) -> Retrained:
    return retrain.run(home, params, "planted", size="tiny", now=now, **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = home_with_data(tmp_path_factory.mktemp("retrained"))
    params = settings()

    def interrupt(progress: Progress) -> None:
        if progress.stage == "search" and progress.done == pytest.approx(2 / TRIALS):
            raise Interrupted

    heard: list[Progress] = []
    with pytest.raises(Interrupted):
        again(home, params, NOW, report=interrupt)
    first = again(home, params, NOW + timedelta(hours=1), report=heard.append)
    second = again(home, params, NOW + timedelta(days=7), warm_start=True)
    yield World(home, params, heard, first, second)
    ray.shutdown()


def test_an_interrupted_retraining_takes_up_its_study(world: World) -> None:
    # Two trials were told before the interruption: had the study begun anew there would be five.
    assert world.first.trials == TRIALS
    assert trials_told(world.home, "planted") == 2 * TRIALS  # both retrainings


def test_the_first_champion_is_buy_and_hold(world: World) -> None:
    changes = promotion.production_history(world.home, "planted")
    assert (changes[0].number, changes[0].action) == (1, "install")
    assert models.version(world.home, "planted", 1).tags["algorithm"] == "buy_and_hold"
    assert world.first.champion == 1
    assert world.first.version == 2


def test_the_verdict_decides_and_nothing_else(world: World) -> None:
    for done in (world.first, world.second):
        assert done.promoted == (done.verdict == "promote")
        version = models.version(world.home, "planted", done.version)
        judgement = attempts.newest_verdict(world.home, version)
        assert judgement is not None
        assert judgement.report.verdict == done.verdict
        assert version.tags["gate_verdict"] == done.verdict


def test_everybody_stands_on_the_same_unseen_bars(world: World) -> None:
    assert set(world.first.contenders) == {
        "candidate", "flat", "buy_and_hold", "ma_crossover", "volatility_target", "random",
    }  # fmt: skip
    assert world.first.contenders["flat"]["total_return"] == 0.0
    assert all("sharpe" in measures for measures in world.first.contenders.values())


def test_a_later_retraining_counts_earlier_trials_and_the_earlier_look(world: World) -> None:
    first, second = (
        attempts.newest_verdict(world.home, models.version(world.home, "planted", done.version))
        for done in (world.first, world.second)
    )
    assert first is not None
    assert second is not None
    assert (first.report.trials, first.report.looks) == (TRIALS, 0)
    assert (second.report.trials, second.report.looks) == (2 * TRIALS, 1)
    assert [(study.trials, study.lost) for study in world.second.evidence.studies] == [
        (TRIALS, 0), (TRIALS, 0),
    ]  # fmt: skip
    page = world.second.reports["report"].read_text(encoding="utf-8")
    assert f"<td>trials ever run</td><td class=text>{2 * TRIALS}, worth " in page
    assert all(study.study in page for study in world.second.evidence.studies)


def test_the_card_says_where_the_policy_comes_from(world: World) -> None:
    dataset = load_dataset(world.home, world.params, "planted")
    timeline = divide(dataset.first_row, len(dataset), world.params.split, 1)
    card = world.bundle(world.first).card
    assert card.dataset_sha256 == dataset.sha256
    assert card.train_first == str(dataset.market.time[timeline.train.start])
    assert card.train_last == str(dataset.market.time[timeline.validation.stop - 1])
    assert card.trial in range(TRIALS)
    assert card.seed in range(SEEDS)
    assert card.params["run"]["seeds"] == SEEDS
    assert card.params["ppo"]["steps"] == 4096
    assert card.gate is not None
    assert card.gate["verdict"] == world.first.verdict


def test_trials_seeds_and_folds_are_runs_with_learning_curves(world: World) -> None:
    client = connect(world.home)
    experiment = client.get_experiment_by_name("planted").experiment_id
    children = client.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{world.first.run_id}'"
    )
    kinds = [run.data.tags["kind"] for run in children]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "trial": TRIALS, "seed": SEEDS, "fold": FOLDS,
    }  # fmt: skip
    for run in children:
        curve = client.get_metric_history(run.info.run_id, "validation_score")
        assert [point.step for point in curve] == sorted(point.step for point in curve)
        assert curve
    parent = client.get_run(world.first.run_id)
    assert parent.data.tags["dataset_sha256"] == world.bundle(world.first).card.dataset_sha256
    assert parent.data.tags["git_commit"]
    assert parent.data.params["ppo.steps"] == "4096"
    files = {item.path for item in client.list_artifacts(world.first.run_id)}
    assert {"report.html", "trades.csv", "gate.json", "weights.npz", "bundle"} <= files


def test_the_report_stands_alone(world: World) -> None:
    page = world.first.reports["report"].read_text(encoding="utf-8")
    assert "<script src=" not in page
    assert world.first.verdict in page
    assert len(page) < 6_000_000


def test_progress_names_every_stage(world: World) -> None:
    stages = list(dict.fromkeys(progress.stage for progress in world.heard))
    assert stages == ["data", "leaks", "search", "train", "gate"]
    assert world.heard[-1].done == 1.0


def test_too_few_unseen_bars_decide_nothing(world: World) -> None:
    strict = settings(gate={"min_holdout_bars": 400, "bootstrap_samples": 200})
    before = models.alias(world.home, "planted", "Production")
    done = again(world.home, strict, NOW + timedelta(days=14), trials=1, seeds=1)
    assert done.verdict == "insufficient evidence"
    assert not done.promoted
    assert models.alias(world.home, "planted", "Production") == before


def test_an_agent_without_datasets_is_told_what_to_run(world: World) -> None:
    with pytest.raises(DataError, match="ratchet ingest ABSENT"):
        retrain.run(world.home, world.params, "other", size="tiny", now=NOW)


def test_an_unknown_size_is_refused_with_the_known_ones(world: World) -> None:
    with pytest.raises(ConfigError, match=r"no size 'huge'.*tiny"):
        retrain.run(world.home, world.params, "planted", size="huge", now=NOW)


def course(world: World) -> Course:
    learned = load_training_dataset(world.home, world.params, "planted")
    timeline = divide(learned.first_row, len(learned), world.params.split, 1)
    rules = retrain.Rules.of(
        world.params.account, world.params.costs, world.params.risk_for("planted")
    )
    return Course("planted", world.params, learned, timeline, rules, 1.0)


def test_the_times_of_a_trial_are_those_of_the_bars_it_was_scored_by(world: World) -> None:
    made = course(world)
    lesson = made.lesson(made.space.usual, seed=0)
    held = np.expm1(returns_of(lesson, lambda seen: np.full(len(seen), 2)))  # buy, and keep
    market = dict(zip(made.learned.market.time.astype("datetime64[s]").astype(int),
                      contest.market_returns(made.learned.market), strict=True))  # fmt: skip
    same_days = [market[time] for time in made.validation_times[: len(held)]]
    shifted = [market[time] for time in made.validation_times[1 : len(held) + 1]]
    assert np.corrcoef(held, same_days)[0, 1] > 0.8  # but for the bars that open a stretch
    assert abs(np.corrcoef(held, shifted)[0, 1]) < 0.5


def test_no_lesson_holds_a_bar_after_its_validation_window(world: World) -> None:
    made = course(world)
    values = made.space.usual
    timeline = made.timeline
    whole = made.lesson(values, seed=0)
    assert len(whole.dataset) == timeline.validation.stop
    assert whole.dataset.market.time[-1] < made.learned.market.time[timeline.holdout.start]
    for fold in walk_forward(timeline, FOLDS, world.params.split, 1):
        lesson = made.lesson(values, 0, fold)
        assert len(lesson.dataset) == fold.validation.stop
        assert fold.validation.stop < fold.out_of_sample.start


def test_the_scaler_knows_the_training_rows_alone(world: World) -> None:
    made = course(world)
    rows = made.learned.table[made.timeline.train.start : made.timeline.train.stop]
    assert np.array(made.lesson(made.space.usual, 0).scaler.centre) == pytest.approx(rows.mean(0))


def test_the_identity_follows_data_and_settings_but_not_the_gate(world: World) -> None:
    made = course(world)
    strict = settings(gate={"min_holdout_bars": 400})
    other = settings(ppo={"steps": 8_192})
    assert replace(made, params=strict).identity == made.identity
    assert replace(made, params=other).identity != made.identity
    assert replace(made, effort=0.5).identity != made.identity


def test_the_median_seed_ships_never_the_best() -> None:
    def scored(*scores: float) -> list[Trained]:
        return [Trained(b"", b"", "", (), score, 0, 0.0) for score in scores]

    assert median_seed(scored(0.9, 0.1, 0.5)) == 2
    assert median_seed(scored(0.9, 0.1, 0.5, 0.6)) == 2  # of an even number, the lower middle
    assert median_seed(scored(0.3)) == 0


def test_a_feature_that_knows_the_future_ends_a_retraining_before_its_study(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    indicators = ["return_1", "own_features:tomorrow"]
    features = {"indicators": indicators, "include_vix": False, "anchor_years": 1}
    params = settings(features=features)
    with monkeypatch.context() as unproved:  # a table somebody brought along
        unproved.setattr(featurize, "require_honest_features", lambda *_: None)
        featurize.run(world.home, params, "PLANTED")
    before = trials_told(world.home, "planted")
    try:
        with pytest.raises(FutureLeak, match="features of planted: own_features:tomorrow know"):
            again(world.home, params, NOW + timedelta(days=9))
    finally:
        featurize.run(world.home, world.params, "PLANTED")
    assert trials_told(world.home, "planted") == before


def test_versions_stand_side_by_side_on_bars_that_none_was_trained_on(world: World) -> None:
    numbers = [1, world.first.version, world.second.version]
    now = NOW + timedelta(days=8)
    done = compare.run(world.home, world.params, "planted", numbers, now=now)
    assert [name.split(" (")[0] for name in done.contenders][:3] == [
        f"version {number}" for number in numbers
    ]
    assert {"flat", "buy_and_hold", "random"} <= set(done.contenders)
    trained = world.bundle(world.second).card.train_last
    assert trained is not None
    assert done.first > datetime.fromisoformat(trained[:19]).replace(tzinfo=UTC)
    page = done.report.read_text(encoding="utf-8")
    assert all(name in page for name in done.contenders)
    with pytest.raises(ConfigError, match="compare needs two versions or more"):
        compare.run(world.home, world.params, "planted", [1, 1], now=now)
