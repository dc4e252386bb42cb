"""The study: same trials for same inputs, whatever is killed, pruned, broken or slow."""

import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
import study_kit
from study_kit import SETTINGS, climb, height, params, plan, trials_told

from core.errors import ConfigError, TrainingError
from core.home import PROJECT, Home
from core.progress import Progress
from training import workers
from training.space import space_for
from training.study import (
    Trial,
    close_study,
    floors_of,
    open_study,
    propose,
    search,
)
from training.workers import require_trained, train_all

MASKED_LOSS = r"the loss at s3://me:\*{4}@store is not a number"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One Ray for all tests here; most use studies of other names."""
    # The workers cannot import what lies beside the tests.
    ray.cloudpickle.register_pickle_by_value(study_kit)
    yield Home(tmp_path_factory.mktemp("studies"))
    ray.shutdown()


def told(searched: Any) -> list[tuple[int, str, float | None, dict[str, Any]]]:
    return [(t.number, t.state, t.score, dict(t.hyperparameters)) for t in searched.trials]


def curve(*scores: float) -> tuple[dict[str, float], ...]:
    return tuple({"validation_score": score} for score in scores)


def test_a_killed_study_is_resumed_and_ends_as_if_nothing_had_happened(
    home: Home, tmp_path: Path
) -> None:
    killed = Home(tmp_path / "killed")
    command = [sys.executable, study_kit.__file__, str(killed.root), "0.05"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    heard: list[int] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        for line in process.stdout or ():
            if line == "told 3\n":  # in the middle of the second generation
                os.killpg(process.pid, signal.SIGKILL)
                break
    resumed = study_kit.run(killed, lambda trial: heard.append(trial.number))
    whole = study_kit.run(home, lambda trial: None)
    assert told(resumed) == told(whole)
    assert heard == list(range(8))  # each once, the ones before the kill included
    assert resumed.best == whole.best
    assert resumed.returns.tobytes() == whole.returns.tobytes()
    assert [t.state for t in whole.trials].count("pruned") > 0


def test_the_first_trial_is_what_params_yaml_says(home: Home) -> None:
    first = propose(plan(), (), generation=0, size=3)[0]
    assert first["learning_rate"] == params().ppo.learning_rate
    assert first["hidden"] == "64-64"
    assert first["penalty"] == params().environment.penalty


def test_proposals_depend_on_seed_generation_and_history_alone() -> None:
    base = propose(plan(), (), 0, 3)
    assert propose(plan(), (), 0, 3) == base
    assert propose(plan(), (), 0, 2) == base[:2]
    assert propose(plan(seed=2), (), 0, 3)[1:] != base[1:]
    history = [
        Trial(n, values, "complete", height(values), curve(height(values)))
        for n, values in enumerate(base)
    ]
    assert propose(plan(), history, 1, 3) == propose(plan(), history, 1, 3)
    assert propose(plan(), history, 1, 3) != propose(plan(), history, 2, 3)


def test_floors_come_from_what_earlier_trials_had_reached_by_then() -> None:
    history = [
        Trial(0, {}, "complete", 4.0, curve(1.0, 2.0, 3.0, 4.0)),
        Trial(1, {}, "complete", 1.0, curve(5.0, 1.0, 1.0, 1.0)),
        Trial(2, {}, "pruned", 0.0, curve(0.0, 0.0)),
    ]
    # Best so far at the second report: 2, 5, 0, whose median is 2; only two reached the third;
    # the first is too early and after the last there is nothing left to save.
    assert floors_of(history, SETTINGS) == (-math.inf, 2.0, -math.inf, -math.inf)
    assert floors_of(history[:2], SETTINGS) == (-math.inf,) * 4


def test_a_training_below_the_floor_ends_there(home: Home) -> None:
    good = {"discount": 0.95, "hidden": "64-64"}  # reaches 0.25, 0.5, 0.75, 1
    poor = {"discount": 0.93, "hidden": "64-64"}  # reaches 0.15, 0.3, …
    outcomes = train_all(home, [good, poor], (-math.inf, 0.4), train=climb)  # type: ignore[list-item]
    assert [outcome.state for outcome in outcomes] == ["complete", "pruned"]
    assert [len(outcome.curve) for outcome in outcomes] == [4, 2]


def test_a_trial_that_breaks_is_recorded_and_the_study_goes_on(home: Home) -> None:
    def teach(values: Mapping[str, Any]) -> Any:
        return dict(values) | {"broken": values["hidden"] == "64-64"}

    searched = search(home, plan(trials=4, identity="b" * 64), teach, train=climb)
    states = {t.hyperparameters["hidden"] == "64-64": t.state for t in searched.trials}
    assert states[True] == "failed"
    assert searched.trials[0].problem == "the loss at s3://me:****@store is not a number"
    assert searched.best.state == "complete"


def test_a_study_whose_every_trial_breaks_says_why(home: Home) -> None:
    searched = search(
        home,
        plan(trials=2, identity="c" * 64),
        lambda values: dict(values) | {"broken": True},  # type: ignore[arg-type, return-value]
        train=climb,
    )
    with pytest.raises(TrainingError, match=rf"none of 2 trials ended: {MASKED_LOSS}"):
        searched.best  # noqa: B018


def test_what_is_wrong_for_every_trial_alike_is_raised_at_once(home: Home) -> None:
    with pytest.raises(ConfigError, match="wealth"):
        train_all(home, [{"unusable": True}] * 3, train=climb)  # type: ignore[list-item]


def test_a_seed_that_breaks_ends_the_retraining(home: Home) -> None:
    outcomes = train_all(home, [{"broken": True}], train=climb)  # type: ignore[list-item]
    with pytest.raises(TrainingError, match=rf"seed 0 of 1: {MASKED_LOSS}"):
        require_trained(outcomes, "seed")


def test_every_trial_ever_run_is_counted_over_all_studies_of_an_agent(home: Home) -> None:
    counted = Home(home.root / "counted")

    def teach(values: Mapping[str, Any]) -> Any:
        return dict(values)

    first = search(counted, plan(trials=2, identity="d" * 64), teach, train=climb)
    close_study(counted, first.study)
    second = search(counted, plan(trials=2, identity="d" * 64), teach, train=climb)
    assert second.study != first.study
    assert told(second) == told(first)
    assert trials_told(counted, "demo") == 4
    assert trials_told(counted, "dem") == 0


def test_a_study_left_open_is_taken_up_and_another_plan_is_not_mixed_in(home: Home) -> None:
    own = Home(home.root / "own")
    name = open_study(own, plan(identity="e" * 64)).study_name
    assert open_study(own, plan(identity="e" * 64)).study_name == name
    assert open_study(own, plan(identity="f" * 64)).study_name != name


def test_a_study_knows_how_many_independent_trials_it_held(home: Home) -> None:
    searched = search(home, plan(trials=6, identity="e" * 64), dict, train=climb)
    complete = [trial for trial in searched.trials if trial.state == "complete"]
    assert searched.returns.shape == (len(complete), 40)
    # Here all complete trials move alike; a pruned one, whose returns nobody knows, counts one.
    assert searched.effective_trials == pytest.approx(1 + 6 - len(complete))


def test_progress_tells_trial_best_and_time_left(home: Home) -> None:
    heard: list[Progress] = []
    search(
        home,
        plan(trials=3, identity="1" * 64),
        lambda values: dict(values),  # type: ignore[arg-type, return-value]
        report=heard.append,
        train=climb,
    )
    assert [progress.done for progress in heard] == [1 / 3, 2 / 3, 1.0]
    assert heard[0].text.startswith("trial 1 of 3: ")
    assert "s left" in heard[0].text
    assert "s left" not in heard[2].text


def test_trials_overlay_the_settings_of_params_yaml() -> None:
    space = space_for(params(), "demo")
    values = space.usual | {"learning_rate": 0.001, "hidden": "32-32", "penalty": 0.5}
    algorithm, environment = space.settings(values)
    assert algorithm.learning_rate == 0.001
    assert algorithm.hidden == (32, 32)
    assert algorithm.steps == params().ppo.steps  # type: ignore[union-attr]
    assert environment.penalty == 0.5


def test_a_warm_start_keeps_the_network() -> None:
    warm = space_for(params(), "demo", (48, 24))
    assert warm.networks == ("48-24",)  # that of the version it goes on from
    assert warm.usual["hidden"] == "48-24"


def test_ray_outlives_the_thread_that_asked_for_it(home: Home) -> None:
    ray.shutdown()
    asking = threading.Thread(target=workers.start, args=(home,))
    asking.start()
    asking.join()
    values = {"discount": 0.95, "hidden": "64-64"}
    outcomes = train_all(home, [values], train=climb)  # type: ignore[list-item]
    assert outcomes[0].state == "complete"


def test_two_homes_have_folders_of_their_own_for_ray(tmp_path: Path) -> None:
    one, two = workers.temp_folder(Home(tmp_path / "1")), workers.temp_folder(Home(tmp_path / "2"))
    assert one != two
    assert len(str(one)) < 50
