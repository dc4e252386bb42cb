"""Attribution: the features a rationale names are the ones that moved the decision."""

import numpy as np
import pytest
import serving_kit as world

from core.errors import BadBundle
from features.observation import observation_columns
from registry.policy import Policy
from serving.attribution import explain, group_columns, in_words


def test_hiding_the_named_features_moves_the_score_more_than_hiding_random_ones() -> None:
    columns = observation_columns(world.spec_of(world.params()))
    policy = Policy.open(world.network(len(columns), seed=5), 1)
    rng = np.random.default_rng(6)
    score = policy.scores
    names = list(group_columns(columns))
    wins = 0
    for _ in range(200):
        observation = rng.normal(size=len(columns)).astype(np.float32)
        named = [one.name for one in explain(score, observation, columns)]
        chance = rng.choice(names, size=3, replace=False)
        moved = []
        for hidden in (named, chance):
            blind = observation.copy()
            blind[[columns.index(name) for name in hidden]] = 0.0
            moved.append(abs(float((score(observation[None]) - score(blind[None]))[0, 0])))
        wins += moved[0] > moved[1]
    assert wins >= 0.95 * 200  # 0.8 is asked for


def test_scores_are_those_of_the_decision() -> None:
    policy = Policy.open(world.network(7, seed=5), 1)
    rows = np.random.default_rng(6).normal(size=(9, 7)).astype(np.float32)
    assert policy.scores(rows).tobytes() == policy.decide_batch(rows).score.tobytes()
    rows[3] = np.nan
    with pytest.raises(BadBundle, match=r"policy\.onnx: answers scores .*nan"):
        policy.scores(rows)


def test_the_effects_of_a_linear_policy_are_its_terms() -> None:
    weights = np.array([[0.5], [-2.0], [0.0], [1.0]], np.float32)
    observation = np.array([1.0, 0.25, 9.0, 0.125], np.float32)
    found = explain(lambda rows: rows @ weights, observation, ("a", "b", "c", "d"), top=2)
    # a adds 0.5, b takes 0.5, d adds 0.125: a first; then b would undo it, d goes further.
    assert [(one.name, one.effect) for one in found] == [("a", 0.5), ("d", 0.125)]
    assert in_words(found) == "a +1.00 raises it by 0.500, d +0.12 raises it by 0.125"


def test_lags_of_one_feature_are_hidden_together() -> None:
    columns = ("x[-1]", "y[-1]", "x", "y", "position")
    assert group_columns(columns) == {"x": [0, 2], "y": [1, 3], "position": [4]}
    weights = np.array([[1.0], [1.9], [1.0], [0.0], [0.5]], np.float32)
    found = explain(lambda rows: rows @ weights, np.ones(5, np.float32), columns)
    assert [(one.name, round(one.effect, 6)) for one in found] == [
        ("x", 2.0), ("y", 1.9), ("position", 0.5),
    ]  # fmt: skip


def test_a_policy_that_looks_at_nothing_names_nothing() -> None:
    found = explain(lambda rows: np.ones((len(rows), 1)), np.ones(3, np.float32), ("a", "b", "c"))
    assert found == ()
    assert in_words(found) == "no feature moves this policy here"
