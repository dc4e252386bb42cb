import numpy as np
import torch
from features_kit import params

from features.account import ACCOUNT_COLUMNS
from features.observation import observation_columns, observe, observe_rows
from features.spec import spec_from

TABLE = np.arange(20, dtype=np.float32).reshape(10, 2)
ACCOUNT = np.array([[100.0], [200.0]], dtype=np.float32)


def test_an_observation_is_the_window_oldest_row_first_then_the_account():
    found = observe_rows(TABLE, np.array([2, 5]), 3, ACCOUNT)
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 1, 2, 3, 4, 5, 100], [6, 7, 8, 9, 10, 11, 200]]


def test_the_fast_path_gives_what_observe_gives():
    for window in (1, 2, 4):
        rows = np.array([4, 9])
        windows = np.stack([TABLE[row - window + 1 : row + 1] for row in rows])
        expected = observe(windows, ACCOUNT)
        assert observe_rows(TABLE, rows, window, ACCOUNT).tobytes() == expected.tobytes()


def test_torch_gives_the_same_bytes():
    for window in (1, 3):
        expected = observe_rows(TABLE, np.array([4, 9]), window, ACCOUNT)
        found = observe_rows(
            torch.from_numpy(TABLE), torch.tensor([4, 9]), window, torch.from_numpy(ACCOUNT)
        )
        assert found.numpy().tobytes() == expected.tobytes()


def test_every_number_of_an_observation_has_a_name():
    made = spec_from(params(features={"indicators": ["rsi_14", "macd"]}, environment={"window": 2}))
    assert observation_columns(made) == (
        *("rsi_14[-1]", "macd[-1]", "rsi_14", "macd"),
        *ACCOUNT_COLUMNS,
    )
