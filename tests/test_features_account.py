import numpy as np
import pytest
import torch
from core_kit import flat, random_market

from core.accounts import State, open_accounts
from core.bars import Bar, PackedMarket
from core.compiled import by_arrays
from features.account import (
    ACCOUNT_COLUMNS,
    LIMIT,
    SLEEVE_COLUMNS,
    SYMBOL_COLUMNS,
    account_features,
)


def close(*prices: float) -> Bar:
    return flat(prices)


def busy_accounts(n: int) -> State:
    rng = np.random.default_rng(n)
    shares = np.round(rng.normal(0, 300, (n, 1)))
    recent = tuple(np.where(rng.random((n, 1)) < 0.3, np.nan, rng.random((n, 1))) for _ in range(3))
    return open_accounts(n, 1, 10_000.0).but(
        shares=shares,
        average_price=np.where(shares == 0, 0.0, rng.uniform(20, 40, (n, 1))),
        pending_shares=np.round(rng.normal(0, 30, (n, 1))),
        equity=rng.uniform(5_000, 10_000, n),
        average_equity=rng.uniform(6_000, 9_000, n),
        last_trade=-np.round(rng.uniform(0, 90, (n, 1))),
        reducing=rng.random(n) < 0.5,
        recent=recent,
    )


def test_an_untouched_account_is_all_zeros():
    features = account_features(open_accounts(3, 1, 1000.0), close(10.0))
    assert features.dtype == np.float32
    assert features.tolist() == np.zeros((3, len(ACCOUNT_COLUMNS))).tolist()


def test_every_column_by_hand():
    state = open_accounts(1, 1, 10_000.0).but(
        shares=np.array([[100.0]]),
        average_price=np.array([[40.0]]),
        pending_shares=np.array([[-20.0]]),
        equity=np.array([9_000.0]),
        average_equity=np.array([9_000.0 / 0.97]),
        last_trade=np.array([[-5.0]]),
        entry_from=np.array([[5.0]]),
        recent=(np.array([[0.5]]), np.array([[np.nan]]), np.array([[0.0]])),
        reducing=np.array([True]),
    )
    expected = {
        "position_weight": 100 * 45 / 9_000,
        "pending_weight": -20 * 45 / 9_000,
        "unrealised_return": 10 * (45 / 40 - 1),
        "bars_since_trade": 5 / 25,
        "cooldown": 0.5,
        "decision_1": 0.5,
        "decision_2": 0.5,  # hold: the weight held, 100 * 45 / 9000
        "decision_3": 0.0,
        "drawdown": 5 * 0.1,
        "month_return": -0.3,
        "reducing": 1.0,
    }
    found = account_features(state, close(45.0))[0]
    named = dict(zip(ACCOUNT_COLUMNS, found.tolist(), strict=True))
    assert named == pytest.approx(expected, rel=1e-6)
    assert tuple(expected) == ACCOUNT_COLUMNS


def test_a_short_position_gains_when_the_price_falls():
    state = open_accounts(1, 1, 10_000.0).but(
        shares=np.array([[-10.0]]),
        average_price=np.array([[50.0]]),
    )
    found = account_features(state, close(45.0))[0]
    assert found[ACCOUNT_COLUMNS.index("unrealised_return")] == pytest.approx(10 * 0.1, rel=1e-6)


def test_a_ruined_account_stays_finite():
    state = open_accounts(1, 1, 1000.0).but(
        shares=np.array([[-100.0]]),
        average_price=np.array([[1.0]]),
        equity=np.array([-500.0]),
    )
    found = account_features(state, close(1e6))
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= LIMIT


def test_one_account_has_the_bytes_it_has_among_many():
    state = busy_accounts(200)
    together = account_features(state, close(31.0))
    for i in (0, 7, 199):
        one = account_features(state.only([i]), close(31.0))
        assert one[0].tobytes() == together[i].tobytes()


def test_numpy_and_torch_agree_to_the_last_bit():
    state = busy_accounts(64)
    other = State(state.clock, *map(torch.from_numpy, state[1:]))
    bar = Bar(*map(torch.from_numpy, close(31.0)))
    found = account_features(other, bar)
    assert found.dtype == torch.float32
    assert found.numpy().tobytes() == account_features(state, close(31.0)).tobytes()


def test_machine_code_has_the_bytes_of_arrays():
    state = busy_accounts(64)
    with by_arrays():
        expected = account_features(state, close(31.0))
    assert account_features(state, close(31.0)).tobytes() == expected.tobytes()


def test_machine_code_reads_the_rows_that_accounts_stand_at():
    rng = np.random.default_rng(4)
    market, state = PackedMarket.of(random_market(rng, 90)), busy_accounts(37)
    bars = market.at(rng.integers(0, 90, 37))
    with by_arrays():
        expected = account_features(state, bars)
    assert account_features(state, bars).tobytes() == expected.tobytes()


def test_each_symbol_of_an_account_has_its_columns():
    features = account_features(open_accounts(2, 3, 1000.0), close(1.0, 2.0, 3.0))
    assert features.shape == (2, 3 * len(SYMBOL_COLUMNS) + len(SLEEVE_COLUMNS))
