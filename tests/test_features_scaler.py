import numpy as np
import pytest
from features_kit import spec

from core.errors import NotEnoughData, SpecMismatch
from features.scaler import Scaler
from features.spec import FeatureSpec

TWO = ["rsi_14", "macd"]


def two(**features: object) -> FeatureSpec:
    return spec(indicators=TWO, **features)


def test_zscore_by_hand():
    scaler = Scaler.fit(np.array([[1.0, 5.0], [3.0, 5.0]]), two())
    # Mean 2, deviation 1; the second column does not move and scales to 0.
    assert scaler.transform(np.array([[2.5, 5.0], [1.0, 5.0]])).tolist() == [[0.5, 0], [-1, 0]]


def test_minmax_by_hand():
    scaler = Scaler.fit(np.array([[1.0, 5.0], [3.0, 9.0], [2.0, 6.0]]), two(scaler="minmax"))
    assert scaler.transform(np.array([[1.0, 9.0], [2.0, 8.0]])).tolist() == [[-1, 1], [0, 0.5]]


def test_rolling_by_hand():
    scaler = Scaler("rolling", ("rsi_14",), 5.0, 3, (), ())
    scaled = scaler.transform(np.array([[9.0], [1.0], [2.0], [3.0], [3.0], [3.0]]))
    assert np.isnan(scaled[:2]).all()
    # Rows 1 to 3: mean 2, deviation sqrt(2/3). The last three rows do not move.
    assert scaled[3, 0] == np.float32(1.0 / np.sqrt(2.0 / 3.0))
    assert scaled[5, 0] == 0.0


def test_scaled_values_are_clipped_float32():
    scaler = Scaler.fit(np.array([[0.0, 0.0], [1.0, 1.0]]), two(clip=3.0))
    scaled = scaler.transform(np.array([[100.0, -100.0]]))
    assert scaled.dtype == np.float32
    assert scaled.tolist() == [[3.0, -3.0]]


@pytest.mark.parametrize("kind", ["zscore", "minmax", "rolling"])
def test_one_row_has_the_bytes_it_has_among_many(kind):
    made = spec(scaler=kind, rolling_window_bars=30)
    rows = np.random.default_rng(1).normal(size=(1500, len(made.columns))) ** 3
    scaler = Scaler.fit(rows[:700], made)
    together = scaler.transform(rows)
    for row in (29, 30, 511, 541, 542, 1023, 1499):
        alone = scaler.transform(rows[row - scaler.look_back_rows : row + 1])[-1]
        assert alone.tobytes() == together[row].tobytes(), row
    fortran = scaler.transform(np.asfortranarray(rows))
    assert fortran.tobytes() == together.tobytes()


def test_rolling_follows_the_regime_and_knows_nothing_of_later_rows():
    made = two(scaler="rolling", rolling_window_bars=20)
    rows = np.random.default_rng(2).normal(size=(300, 2))
    rows[150:] += 50.0
    scaled = Scaler.fit(rows[:5], made).transform(rows)
    assert scaled[150].min() > 4.0  # the jump
    assert np.abs(scaled[180:]).max() < 4.5  # is the new normal
    assert scaled[:200].tobytes() == Scaler.fit(rows[:5], made).transform(rows[:200]).tobytes()


@pytest.mark.parametrize("kind", ["zscore", "minmax", "rolling"])
def test_a_scaler_survives_json_bit_for_bit(kind):
    rows = np.random.default_rng(3).normal(size=(50, 2)) / 3.0
    scaler = Scaler.fit(rows, two(scaler=kind))
    assert Scaler.from_json(scaler.to_json()) == scaler


def test_a_scaler_is_never_fitted_on_missing_rows():
    rows = np.array([[1.0, 2.0], [np.nan, 2.0]])
    with pytest.raises(NotEnoughData, match="training row 1: rsi_14 is nan"):
        Scaler.fit(rows, two())
    with pytest.raises(NotEnoughData, match="1 training rows"):
        Scaler.fit(rows[:1], two())


def test_rows_of_another_width_are_refused():
    scaler = Scaler.fit(np.zeros((3, 2)), two())
    with pytest.raises(SpecMismatch, match=r"\(4, 3\) to scale, expected \(rows, 2\)"):
        scaler.transform(np.zeros((4, 3)))
    with pytest.raises(SpecMismatch, match=r"\(4, 3\), expected \(rows, 2\)"):
        Scaler.fit(np.zeros((4, 3)), two())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "zscore"}'])
def test_a_broken_scaler_is_one_clear_error(text):
    with pytest.raises(SpecMismatch, match="cannot be read"):
        Scaler.from_json(text)


def test_a_scaler_that_lost_a_column_is_refused():
    text = Scaler.fit(np.zeros((3, 2)), two()).to_json().replace("[1.0, 1.0]", "[1.0]")
    with pytest.raises(SpecMismatch, match="2 centres and 1 spreads"):
        Scaler.from_json(text)
