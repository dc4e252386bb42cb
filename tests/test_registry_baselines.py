"""Baselines answer by their rule, exactly, in the policy's own contract."""

import json

import numpy as np
import pytest
from registry_kit import PARAMS, make_scaler, make_spec, observations

from core.errors import ConfigError
from core.settings import parse_params
from features.observation import observation_columns
from features.scaler import Scaler
from features.spec import FeatureSpec, spec_from
from registry.baselines import BASELINES, make_baseline
from registry.policy import Decision, Policy

SPEC = make_spec()
SCALER = make_scaler(SPEC)
COLUMNS = observation_columns(SPEC)


def decide(kind: str, rows: np.ndarray, spec: FeatureSpec = SPEC, seed: int = 0) -> Decision:
    return Policy.open(make_baseline(kind, spec, make_scaler(spec), seed), symbols=1).decide(rows)


def with_columns(**values: float) -> np.ndarray:
    rows = np.zeros((1, len(COLUMNS)), np.float32)
    for name, value in values.items():
        rows[0, COLUMNS.index(name)] = value
    return rows


def test_flat_never_trades() -> None:
    decision = decide("flat", observations(50, SPEC))
    assert decision.weight.tolist() == [[0.0]] * 50
    assert decision.confidence.tolist() == [1.0] * 50


def test_buy_and_hold_buys_once_and_keeps() -> None:
    assert decide("buy_and_hold", with_columns()).weight.tolist() == [[1.0]]
    for held, pending in ((0.97, 0.0), (0.0, 0.98), (0.5, 0.48)):
        rows = with_columns(position_weight=held, pending_weight=pending)
        decision = decide("buy_and_hold", rows)
        assert np.isnan(decision.weight).all()
        assert decision.score.tolist() == [[1.0]]
    assert decide("buy_and_hold", with_columns(position_weight=0.49)).weight.tolist() == [[1.0]]


@pytest.mark.parametrize("window", [1, 3])
def test_the_crossover_turns_exactly_where_the_averages_cross(window: int) -> None:
    spec = make_spec(window=window)
    raw = np.array([[0.0, value, 0.0, 0.0] for value in (-1e-3, -1e-7, 0.0, 1e-7, 1e-3)])
    scaled = make_scaler(spec).transform(raw)
    # The older rows of the window say the opposite: only the newest row may count.
    older = np.repeat(-scaled, window - 1, axis=1).reshape(5, (window - 1) * 4)
    account = np.zeros((5, len(COLUMNS) - 4), np.float32)
    decision = decide("ma_crossover", np.hstack([older, scaled, account]), spec)
    assert decision.weight[:, 0].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert (np.diff(decision.score[:, 0]) >= 0).all()
    assert (decision.confidence >= 0.5).all()


def test_the_crossover_of_a_rolling_scaler_is_against_its_mean() -> None:
    features = PARAMS["features"] | {"scaler": "rolling"}
    spec = spec_from(parse_params(PARAMS | {"features": features}))
    policy = Policy.open(make_baseline("ma_crossover", spec, Scaler.fit(np.empty((0, 4)), spec)), 1)
    decision = policy.decide(np.vstack([with_columns(macd=-0.1), with_columns(macd=0.1)]))
    assert decision.weight[:, 0].tolist() == [0.0, 1.0]


def test_the_crossover_says_which_indicator_it_misses() -> None:
    features = {"indicators": ["return_1"], "include_vix": False}
    spec = spec_from(parse_params(PARAMS | {"features": features}))
    scaler = Scaler.fit(np.array([[0.0], [1.0]]), spec)
    with pytest.raises(ConfigError, match=r"needs the indicator `macd`.*found return_1"):
        make_baseline("ma_crossover", spec, scaler)


def test_the_volatility_target_halves_the_weight_at_twice_the_usual_volatility() -> None:
    column = {"indicators": ["return_1", "volatility_20"], "include_vix": False}
    spec = spec_from(parse_params(PARAMS | {"features": column}))
    scaler = Scaler.fit(np.array([[0.0, 0.005], [0.0, 0.015], [0.0, 0.010]]), spec)
    raw = np.array([[0.0, value] for value in (0.005, 0.010, 0.020, 0.025)])
    account = np.zeros((4, len(observation_columns(spec)) - 2), np.float32)
    policy = Policy.open(make_baseline("volatility_target", spec, scaler), 1)
    decision = policy.decide(np.hstack([scaler.transform(raw), account]))
    assert decision.weight[:, 0] == pytest.approx([1.0, 1.0, 0.5, 0.4], abs=1e-6)


def test_the_volatility_target_says_which_indicator_it_misses() -> None:
    features = {"indicators": ["return_1"], "include_vix": False}
    spec = spec_from(parse_params(PARAMS | {"features": features}))
    scaler = Scaler.fit(np.array([[0.0], [1.0]]), spec)
    with pytest.raises(ConfigError, match="volatility_target needs the indicator `volatility_20`"):
        make_baseline("volatility_target", spec, scaler)


def test_random_is_even_repeatable_and_seeded() -> None:
    rows = observations(4_000, SPEC)
    first = decide("random", rows, seed=1).weight[:, 0]
    assert set(first) == {0.0, 1.0}
    assert abs(first.mean() - 0.5) < 4 * 0.5 / np.sqrt(4_000)  # four standard errors
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.06
    assert (decide("random", rows, seed=1).weight[:, 0] == first).all()
    agreement = (decide("random", rows, seed=2).weight[:, 0] == first).mean()
    assert abs(agreement - 0.5) < 0.04


def test_random_follows_its_documented_formula() -> None:
    rows = observations(20, SPEC, seed=5)
    rng = np.random.default_rng(9)
    prime = 2**31 - 1
    multipliers = rng.integers(1, prime, size=len(COLUMNS)).tolist()
    salt = int(rng.integers(prime))
    expected = []
    for row in rows:
        steps = [int(np.rint(np.float32(value) * np.float32(65_536))) for value in row]
        total = sum(step * factor for step, factor in zip(steps, multipliers, strict=True))
        expected.append(float((total + salt) % prime % 2))
    assert decide("random", rows, seed=9).weight[:, 0].tolist() == expected


@pytest.mark.parametrize("kind", BASELINES)
def test_a_baseline_is_the_same_bytes_every_time(kind: str) -> None:
    assert make_baseline(kind, SPEC, SCALER, 3) == make_baseline(kind, SPEC, SCALER, 3)


def test_an_unknown_baseline_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no baseline 'sma'; known: flat, buy_and_hold"):
        make_baseline("sma", SPEC, SCALER)


def test_scalers_travel_as_json() -> None:
    assert Scaler.from_json(json.dumps(json.loads(SCALER.to_json()))) == SCALER
