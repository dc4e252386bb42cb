import pickle
from dataclasses import replace

import numpy as np
import pytest
from features_kit import daily_index, dataset_of, params, random_bars, spec

from core.errors import BadBars, NotEnoughData
from features.dataset import Dataset
from features.indicators import LONGEST_LOOK_BACK
from features.spec import spec_from

BARS = random_bars(daily_index(500), seed=11)
DATASET = dataset_of(BARS, spec())


def test_the_first_row_is_the_first_that_is_complete():
    assert DATASET.first_row == LONGEST_LOOK_BACK
    assert np.isfinite(DATASET.table[DATASET.first_row :]).all()
    assert np.isfinite(DATASET.market.atr[DATASET.first_row :]).all()


def test_a_window_and_a_rolling_scaler_move_the_first_row():
    made = spec_from(
        params(features={"scaler": "rolling", "rolling_window_bars": 50}, environment={"window": 3})
    )
    dataset = dataset_of(BARS, made)
    assert dataset.first_row == LONGEST_LOOK_BACK + 49 + 2
    assert dataset.rows(300, 400).first_row == 51


def test_a_part_has_the_rows_and_a_hash_of_its_own():
    part = DATASET.rows(50, 200)
    assert len(part) == 150
    assert part.first_row == LONGEST_LOOK_BACK - 50
    assert part.market.close.tobytes() == DATASET.market.close[50:200].tobytes()
    assert part.table.tobytes() == DATASET.table[50:200].tobytes()
    assert part.sha256 != DATASET.sha256
    assert DATASET.rows(300, 400).first_row == 0
    assert DATASET.rows(0, 500).sha256 == DATASET.sha256


def test_the_hash_follows_bars_features_and_spec():
    assert dataset_of(BARS, spec()).sha256 == DATASET.sha256
    assert dataset_of(BARS, spec(clip=4.0)).sha256 != DATASET.sha256
    assert dataset_of(BARS, spec(), "MSFT").sha256 != DATASET.sha256
    one_share_more = BARS.copy()
    one_share_more.iloc[0, one_share_more.columns.get_loc("volume")] += 1
    assert dataset_of(one_share_more, spec()).sha256 != DATASET.sha256
    table = DATASET.table.copy()
    table[-1, -1] = np.nextafter(table[-1, -1], 1.0)
    altered = Dataset.of("AAPL", "AAPL", DATASET.market, table, DATASET.spec)
    assert altered.sha256 != DATASET.sha256


def test_a_dataset_travels_to_workers():
    again = pickle.loads(pickle.dumps(DATASET))
    assert again.sha256 == DATASET.sha256
    assert again.table.tobytes() == DATASET.table.tobytes()
    assert again.table.flags["C_CONTIGUOUS"]


def test_too_few_bars_say_how_many_are_needed():
    with pytest.raises(NotEnoughData, match="AAPL: the newest of 60 rows is not complete"):
        dataset_of(BARS.iloc[:60], spec())
    rolling = spec(scaler="rolling", rolling_window_bars=252)
    with pytest.raises(NotEnoughData, match="AAPL: 300 bars, the first observation needs 352"):
        dataset_of(BARS.iloc[:300], rolling)
    with pytest.raises(NotEnoughData, match="rows 0 to 100 hold no complete observation"):
        DATASET.rows(0, 100)


def test_a_table_of_another_shape_is_refused():
    with pytest.raises(BadBars, match=r"shape \(499, 64\), expected \(500, 64\)"):
        Dataset.of("AAPL", "AAPL", DATASET.market, DATASET.table[1:], DATASET.spec)
    narrow = replace(DATASET.spec, columns=DATASET.spec.columns[1:])
    with pytest.raises(BadBars, match=r"expected \(500, 63\)"):
        Dataset.of("AAPL", "AAPL", DATASET.market, DATASET.table, narrow)
