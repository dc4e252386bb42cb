"""The engine is one engine: any number of accounts, NumPy or torch, and it never looks ahead."""

from dataclasses import replace
from typing import Any

import array_api_compat.torch as torch_namespace
import numpy as np
import pytest
import torch
from core_kit import every_rule, random_market, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from core.accounts import State, choose, open_accounts, state_from_json, state_to_json
from core.bars import Bar, Market, bar_at
from core.compiled import by_arrays
from core.engine import PackedMarket, mark, settle, submit
from core.rules import Rules

STEPS = 40


def run(market: Market, rows: np.ndarray, weights: np.ndarray, rules: Rules) -> list[State]:
    """Return the states after every step of accounts that start at ``rows``."""
    state = open_accounts(len(rows), weights.shape[2], 10_000.0)
    states = []
    for day, weight in enumerate(weights):
        submitted = submit(state, weight, bar_at(market, rows + day), rules).state
        state = settle(submitted, bar_at(market, rows + day + 1), rules).state
        states.append(state)
    return states


def same_bits(one: State, other: State) -> bool:
    return state_to_json(one) == state_to_json(other)


@pytest.mark.parametrize("symbols", [1, 3])
@pytest.mark.parametrize("allow_short", [False, True])
def test_one_account_has_the_bits_it_has_among_many(symbols: int, allow_short: bool) -> None:
    rng = np.random.default_rng(symbols)
    market, rules = random_market(rng, 200, symbols), every_rule(allow_short=allow_short)
    rows, weights = rng.integers(0, 150, 64), random_weights(rng, STEPS, 64, symbols)
    together = run(market, rows, weights, rules)[-1]
    for i in range(0, 64, 7):
        alone = run(market, rows[[i]], weights[:, [i]], rules)[-1]
        assert same_bits(alone, together.only([i]))


def everything(
    market: Market, rows: np.ndarray, weights: np.ndarray, rules: Rules, cash: float = 10_000.0
) -> list[bytes]:
    """Return the bits of every state, verdict and fill, and of books a broker's fills were in."""
    state, bits = open_accounts(len(rows), weights.shape[2], cash), []
    for day, weight in enumerate(weights):
        submitted, verdict = submit(state, weight, bar_at(market, rows + day), rules)
        state, fills = settle(submitted, bar_at(market, rows + day + 1), rules)
        marked = mark(submitted, bar_at(market, rows + day + 1), weight > 0.2, rules)
        bits += [
            array.tobytes()
            for array in (submitted.position, verdict.block, *state[1:], fills.block, *marked[1:])
        ]
    return bits


RULES = {
    "every rule": {},
    "long only": {"allow_short": False},
    "no stops": dict.fromkeys(("stop_loss", "take_profit", "stop_loss_atr", "take_profit_atr")),
    "stop alone": {"take_profit": None, "take_profit_atr": None, "stop_loss": None},
    "target alone": {"stop_loss": None, "stop_loss_atr": None, "take_profit_atr": None},
    "no drawdown rules": {"reduce_drawdown": None, "halt_drawdown": None},
    "no volatility target": {"volatility_target": None, "commission_rate": None},
    "leverage": {"max_leverage": 3.0, "max_exposure": 3.0, "max_weight": 3.0},
    "by account": {"slippage_rate": np.linspace(0.0, 0.01, 61)[:, None], "cooldown_bars": 0},
}


@pytest.mark.parametrize("changes", RULES.values(), ids=RULES)
def test_machine_code_has_the_bits_of_arrays(changes: dict[str, Any]) -> None:
    rng = np.random.default_rng(11)
    market, rules = random_market(rng, 300), every_rule(**changes)
    rows, weights = rng.integers(0, 150, 61), random_weights(rng, 120, 61, 1)  # not whole lanes
    with by_arrays():
        expected = everything(market, rows, weights, rules)
    assert everything(market, rows, weights, rules) == expected


@pytest.mark.parametrize("symbols", [1, 3])
@pytest.mark.parametrize("allow_short", [False, True])
def test_numpy_and_torch_agree_to_the_last_bit(symbols: int, allow_short: bool) -> None:
    """All of the state: it takes no logarithm. ``log_return`` may differ in its last bit."""
    rng = np.random.default_rng(symbols)
    market, rules = random_market(rng, 200, symbols), every_rule(allow_short=allow_short)
    rows, weights = rng.integers(0, 150, 64), random_weights(rng, STEPS, 64, symbols)
    expected = run(market, rows, weights, rules)

    def torch_bar(at: np.ndarray) -> Bar:
        found = bar_at(market, at)
        return Bar(*(torch.from_numpy(getattr(found, name)) for name in Bar._fields))

    state = open_accounts(64, symbols, 10_000.0, xp=torch_namespace)
    for day, weight in enumerate(weights):
        submission = submit(state, torch.from_numpy(weight), torch_bar(rows + day), rules)
        state = settle(submission.state, torch_bar(rows + day + 1), rules).state
        assert same_bits(state, expected[day])
    close = np.asarray(state.log_return)
    assert close == pytest.approx(expected[-1].log_return, rel=1e-12, abs=1e-15)


def test_arrays_never_wait_for_their_device() -> None:
    """PyTorch's meta device knows shapes and no numbers: to ask it for one is an error."""
    rng = np.random.default_rng(1)
    packed = PackedMarket.of(random_market(rng, 40), xp=torch_namespace, device="meta")
    state, rules = open_accounts(8, 1, 10_000.0, xp=torch_namespace, device="meta"), every_rule()
    rows = torch.zeros(8, dtype=torch.int64, device="meta")
    weight = torch.zeros((8, 1), dtype=torch.float64, device="meta")
    for _ in range(8):
        state, verdict = submit(state, weight, packed.at(rows), rules)
        state, fills = settle(state, packed.at(rows + 1), rules)
        state = choose(state.terminated, open_accounts(8, 1, 1.0, torch_namespace, "meta"), state)
    assert {array.device.type for array in (*state[1:], fills.block, verdict.reasons)} == {"meta"}
    with pytest.raises(RuntimeError, match="meta"):
        bool(state.halted.any())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    price=st.sampled_from([1e-6, 1.0, 1e6]),
    cash=st.sampled_from([1.0, 1e4, 1e12]),
    leverage=st.sampled_from([1.0, 5.0]),
)
def test_machine_code_has_the_bits_of_arrays_at_the_edges(
    seed: int, price: float, cash: float, leverage: float
) -> None:
    rng = np.random.default_rng(seed)
    wild = random_market(rng, 60)
    prices = {name: getattr(wild, name) * price for name in ("open", "high", "low", "close", "atr")}
    market = replace(wild, **prices)
    rules = every_rule(max_leverage=leverage, max_exposure=leverage, max_weight=leverage)
    rows, weights = rng.integers(0, 15, 16), random_weights(rng, STEPS, 16, 1)
    with by_arrays():
        expected = everything(market, rows, weights, rules, cash)
    assert everything(market, rows, weights, rules, cash) == expected


def test_a_bar_shared_by_all_is_a_bar_for_each() -> None:
    rng = np.random.default_rng(5)
    market, rules = random_market(rng, 60, 2), every_rule()
    weights = random_weights(rng, STEPS, 5, 2)
    expected = run(market, np.zeros(5, int), weights, rules)[-1]
    state = open_accounts(5, 2, 10_000.0)
    for day, weight in enumerate(weights):
        submitted = submit(state, weight, bar_at(market, day), rules).state
        state = settle(submitted, bar_at(market, day + 1), rules).state
    assert same_bits(state, expected)


def test_rules_by_account_are_the_rules_of_each() -> None:
    rng = np.random.default_rng(6)
    market, weights = random_market(rng, 60), random_weights(rng, STEPS, 3, 1)
    slippage = np.array([[0.0], [0.001], [0.01]])
    leverage = np.array([[1.0], [1.05], [1.1]])
    rows = np.zeros(3, int)
    together = run(
        market, rows, weights, every_rule(slippage_rate=slippage, max_leverage=leverage)
    )[-1]
    for i in range(3):
        rules = every_rule(slippage_rate=float(slippage[i, 0]), max_leverage=float(leverage[i, 0]))
        alone = run(market, rows[[i]], weights[:, [i]], rules)[-1]
        assert same_bits(alone, together.only([i]))


@pytest.mark.parametrize("allow_short", [False, True])
def test_changing_the_future_changes_nothing_before_it(allow_short: bool) -> None:
    rng = np.random.default_rng(7)
    market, rules = random_market(rng, 60), every_rule(allow_short=allow_short)
    weights, rows = random_weights(rng, STEPS, 16, 1), np.zeros(16, int)
    expected = run(market, rows, weights, rules)
    other = random_market(np.random.default_rng(8), 60)
    for last in (1, 10, 25):
        # Rows up to `last` are the same; what follows is another market.
        spliced = Market(
            market.symbols,
            market.time,
            **{
                name: np.concatenate(
                    [getattr(market, name)[: last + 1], getattr(other, name)[last + 1 :]]
                )
                for name in Bar._fields
            },
        )
        found = run(spliced, rows, weights, rules)
        assert all(same_bits(a, b) for a, b in zip(expected[:last], found[:last], strict=True))
        assert not same_bits(expected[last], found[last])


def test_a_snapshot_resumes_to_the_same_bits() -> None:
    rng = np.random.default_rng(9)
    market, rules = random_market(rng, 60, 2), every_rule()
    weights = random_weights(rng, STEPS, 4, 2)
    rows = np.zeros(4, int)
    expected = run(market, rows, weights, rules)
    state = state_from_json(state_to_json(expected[19]))
    for day in range(20, STEPS):
        submitted = submit(state, weights[day], bar_at(market, rows + day), rules).state
        state = settle(submitted, bar_at(market, rows + day + 1), rules).state
    assert same_bits(state, expected[-1])


def test_an_account_opened_anew_lives_like_a_new_one() -> None:
    rng = np.random.default_rng(10)
    market, rules = random_market(rng, 80), every_rule(drawdown_window_bars=8)
    weights, rows = random_weights(rng, STEPS, 2, 1), np.array([0, 30])
    old = run(market, rows, weights[:16], rules)[-1]
    fresh = open_accounts(2, 1, 10_000.0)
    mixed = choose(np.array([True, False]), fresh, old)
    assert mixed.bars_since_trade[0, 0] == 0
    for day in range(16, STEPS):
        at = rows + np.array([day - 16, day])
        mixed = settle(submit(mixed, weights[day], bar_at(market, at), rules).state,
                       bar_at(market, at + 1), rules).state  # fmt: skip
    kept = run(market, rows[[1]], weights[:, [1]], rules)[-1]
    assert same_bits(mixed.only([1]), kept)
    new = run(market, rows[[0]], weights[16:, [0]], rules)[-1]
    assert mixed.cash[0] == new.cash[0]
    assert mixed.shares[0, 0] == new.shares[0, 0]
    assert mixed.bars_since_trade[0, 0] == new.bars_since_trade[0, 0]
    assert mixed.cooldown[0, 0] == new.cooldown[0, 0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), symbols=st.integers(1, 3), allow_short=st.booleans())
def test_every_unit_of_money_is_accounted_for(seed: int, symbols: int, allow_short: bool) -> None:
    rng = np.random.default_rng(seed)
    market = random_market(rng, 60, symbols)
    rules = every_rule(allow_short=allow_short, max_leverage=float(rng.choice([1.0, 2.0])))
    rows, n = rng.integers(0, 20, 8), 8
    weights = random_weights(rng, STEPS, n, symbols)
    state = open_accounts(n, symbols, 10_000.0)
    for day, weight in enumerate(weights):
        bar = bar_at(market, rows + day + 1)
        before = submit(state, weight, bar_at(market, rows + day), rules).state
        state, fills = settle(before, bar, rules)
        exact = before.shares * bar.split_ratio
        kept = np.trunc(exact * (1 + 1e-9))
        shares = kept + fills.open_shares + fills.exit_shares
        flows = (
            (exact - kept) * bar.open
            + kept * bar.dividend
            - fills.open_shares * fills.open_price
            - fills.exit_shares * fills.exit_price
            - fills.commission
        )
        cash = before.cash + np.sum(flows, axis=1)
        scale = 1e-9 * np.maximum(np.abs(cash), 10_000.0)
        assert np.array_equal(state.shares, shares)
        assert np.all(np.abs(state.cash - cash) <= scale)
        value = state.cash + np.sum(state.shares * bar.close, axis=1)
        assert np.all(np.abs(state.equity - value) <= scale)
        assert np.array_equal(state.shares, np.trunc(state.shares))
        capacity = np.floor(bar.volume * rules.volume_participation)
        assert np.all(np.abs(fills.open_shares) + np.abs(fills.exit_shares) <= capacity)
        assert np.all(fills.commission >= 0.0)
        assert np.all(fills.slippage >= -1e-9)
        if not allow_short:
            assert np.all(state.shares >= 0)
        if not allow_short and rules.max_leverage == 1.0:
            # A sale of a few shares may bring in less than its commission.
            assert np.all(state.cash >= -2 * symbols * rules.commission_minimum * (day + 1))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_shorts_allowed_and_never_used_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    market, rows = random_market(rng, 60), rng.integers(0, 20, 8)
    weights = np.abs(random_weights(rng, STEPS, 8, 1))
    long_only = run(market, rows, weights, every_rule(allow_short=False))[-1]
    both_ways = run(market, rows, weights, every_rule(allow_short=True))[-1]
    assert np.array_equal(long_only.shares, both_ways.shares)
    assert long_only.cash == pytest.approx(both_ways.cash, rel=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    ratio=st.sampled_from([2.0, 0.1, 1.5, 3.0]),
    weight=st.floats(0.2, 1.0),
)
def test_a_split_moves_net_asset_value_less_than_a_thousandth(
    seed: int, ratio: float, weight: float
) -> None:
    rng = np.random.default_rng(seed)
    price = float(rng.uniform(20.0, 200.0))
    still = Bar(*(np.array([v]) for v in (price, price, price, price, 1e6, 0.0, 1.0, 1.0, 0.3)))
    after = price / ratio
    split = Bar(*(np.array([v]) for v in (after, after, after, after, 1e6, 0.0, ratio, 1.0, 0.3)))
    rules = every_rule(stop_loss=0.05)
    state = open_accounts(1, 1, 100_000.0)
    state = settle(submit(state, np.array([[weight]]), still, rules).state, still, rules).state
    held = settle(submit(state, np.array([[np.nan]]), still, rules).state, split, rules).state
    assert held.equity[0] == pytest.approx(state.equity[0], rel=1e-3)
    assert held.equity[0] == pytest.approx(state.equity[0], rel=1e-9)
    assert held.stop[0, 0] == pytest.approx(state.stop[0, 0] / ratio)
