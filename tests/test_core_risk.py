"""What risk makes of a target weight, and what it says about it."""

import numpy as np
import pytest
from core_kit import bar, every_rule, flat, free_rules, live

from core import settings
from core.accounts import ACTIVE, HALTED, REDUCING, State, open_accounts
from core.risk import Reason, assess, describe
from core.rules import Rules

HOLD = np.nan
FLAT = open_accounts(1, 1, 10_000.0)


def holding(shares: float, **more: object) -> State:
    """Return an account of 10,000, ``shares`` of them at 100."""
    return FLAT.but(shares=np.array([[shares]]), cash=np.array([10_000.0 - shares * 100.0]), **more)


def weight(*values: float) -> np.ndarray:
    return np.array([values])


CASES = {
    # rules, state, asked, allowed, reasons
    "nothing to say": (free_rules(), FLAT, 0.6, 0.6, Reason(0)),
    "hold stays hold": (free_rules(), FLAT, HOLD, HOLD, Reason(0)),
    "short denied": (free_rules(), FLAT, -0.5, 0.0, Reason.SHORT_DENIED),
    "position limit": (free_rules(max_weight=0.4), FLAT, 1.0, 0.4, Reason.POSITION_LIMIT),
    "position limit of a short": (
        free_rules(max_weight=0.4, allow_short=True), FLAT, -1.0, -0.4, Reason.POSITION_LIMIT),
    "exposure limit": (free_rules(max_exposure=0.4), FLAT, 1.0, 0.4, Reason.EXPOSURE_LIMIT),
    "of two limits alike, the first": (
        free_rules(max_exposure=0.4, max_leverage=0.4), FLAT, 1.0, 0.4, Reason.EXPOSURE_LIMIT),
    "leverage limit": (
        free_rules(max_weight=3.0, max_exposure=3.0, max_leverage=2.0), FLAT, 2.5, 2.0,
        Reason.LEVERAGE_LIMIT),
    "volatility at twice its target": (
        free_rules(volatility_target=0.2), FLAT, 0.8, 0.4, Reason.VOLATILITY_SIZED),
    "volatility below its target": (
        free_rules(volatility_target=0.8), FLAT, 0.8, 0.8, Reason(0)),
    "reduced": (
        free_rules(reduce_drawdown=0.1, reduce_factor=0.5),
        FLAT.but(weight_scale=np.array([0.5])), 0.8, 0.4, Reason.DRAWDOWN_REDUCED),
    "a hold is cut when the reduction begins": (
        free_rules(reduce_drawdown=0.1, reduce_factor=0.5),
        holding(80, weight_scale=np.array([0.5]), began_reducing=np.array([True])), HOLD, 0.4,
        Reason.DRAWDOWN_REDUCED),
    "a hold is left alone later": (
        free_rules(reduce_drawdown=0.1, reduce_factor=0.5),
        holding(80, weight_scale=np.array([0.5])), HOLD, HOLD, Reason(0)),
    "halted": (free_rules(), holding(50, halted=np.array([True])), 0.8, 0.0, Reason.HALTED),
    "halted, whatever is asked": (
        free_rules(), holding(50, halted=np.array([True])), HOLD, 0.0, Reason.HALTED),
    "cooling: no entry": (
        free_rules(cooldown_bars=3), FLAT.but(entry_from=np.array([[2.0]])), 0.8, HOLD,
        Reason.COOLDOWN),
    "cooling: no increase": (
        free_rules(cooldown_bars=3), holding(50, entry_from=np.array([[2.0]])), 0.8, HOLD,
        Reason.COOLDOWN),
    "cooling: a reduction is free": (
        free_rules(cooldown_bars=3), holding(50, entry_from=np.array([[2.0]])), 0.2, 0.2,
        Reason(0)),
    "cooling: of a reversal, the exit": (
        free_rules(cooldown_bars=3, allow_short=True),
        holding(50, entry_from=np.array([[2.0]])), -0.5, 0.0, Reason.COOLDOWN),
    "cooling: no short entry": (
        free_rules(cooldown_bars=3, allow_short=True), FLAT.but(entry_from=np.array([[2.0]])),
        -0.8, HOLD, Reason.COOLDOWN),
    "cooling: no larger short": (
        free_rules(cooldown_bars=3, allow_short=True),
        holding(-50, entry_from=np.array([[2.0]])), -0.8, HOLD, Reason.COOLDOWN),
    "cooling: of a short's reversal, the exit": (
        free_rules(cooldown_bars=3, allow_short=True),
        holding(-50, entry_from=np.array([[2.0]])), 0.2, 0.0, Reason.COOLDOWN),
    "cooling: what is held is free": (
        free_rules(cooldown_bars=3), holding(50, entry_from=np.array([[2.0]])), 0.5, 0.5,
        Reason(0)),
    "cooled": (
        free_rules(cooldown_bars=3), FLAT.but(entry_from=np.array([[2.0]]), clock=2), 0.8,
        0.8, Reason(0)),
    "a change inside the band": (
        free_rules(no_trade_band=0.05), holding(50), 0.54, HOLD, Reason.NO_TRADE_BAND),
    "a change beyond the band": (
        free_rules(no_trade_band=0.05), holding(50), 0.56, 0.56, Reason(0)),
    "a sale inside the band": (
        free_rules(no_trade_band=0.05), holding(50), 0.46, HOLD, Reason.NO_TRADE_BAND),
    "a sale beyond the band": (free_rules(no_trade_band=0.05), holding(50), 0.44, 0.44, Reason(0)),
    "at the limit and not over it, a trim may be small": (
        free_rules(no_trade_band=0.05, max_weight=0.5), holding(50), 0.48, HOLD,
        Reason.NO_TRADE_BAND),
    "a short's trim to the limit is never small": (
        free_rules(no_trade_band=0.05, max_weight=0.5, allow_short=True), holding(-52), -0.9, -0.5,
        Reason.POSITION_LIMIT),
    "an exit is never small": (free_rules(no_trade_band=0.05), holding(3), 0.0, 0.0, Reason(0)),
    "a trim to the limit is never small": (
        free_rules(no_trade_band=0.05, max_weight=0.5), holding(52), 0.9, 0.5,
        Reason.POSITION_LIMIT),
    # 30 held and 20 working lead to 50: 0.52 is near, though 30 are held.
    "the band counts working orders": (
        free_rules(no_trade_band=0.05), holding(30, pending_shares=np.array([[20.0]])), 0.52,
        HOLD, Reason.NO_TRADE_BAND),
}  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "state", "asked", "allowed", "reasons"), CASES.values(), ids=CASES
)
def test_a_verdict_by_hand(
    rules: Rules, state: State, asked: float, allowed: float, reasons: Reason
) -> None:
    verdict = assess(state, weight(asked), flat(100.0, volatility=0.4), rules)
    assert verdict.allowed[0, 0] == pytest.approx(allowed, nan_ok=True)
    assert Reason(int(verdict.reasons[0, 0])) == reasons
    assert len(describe(int(verdict.reasons[0, 0]))) == reasons.bit_count()


def test_unknown_volatility_sizes_to_nothing() -> None:
    verdict = assess(FLAT, weight(1.0), flat(100.0), free_rules(volatility_target=0.2))
    assert verdict.allowed[0, 0] == 0.0
    assert verdict.reasons[0, 0] == Reason.VOLATILITY_SIZED


def test_exposure_is_shared_in_proportion() -> None:
    state = open_accounts(1, 3, 10_000.0)
    rules = free_rules(max_exposure=0.6, allow_short=True)
    verdict = assess(state, weight(0.6, -0.4, 0.2), flat([10.0, 10.0, 10.0]), rules)
    assert verdict.allowed[0].tolist() == pytest.approx([0.3, -0.2, 0.1])
    assert verdict.reasons[0].tolist() == [Reason.EXPOSURE_LIMIT] * 3


def test_what_fills_a_limit_to_the_last_bit_is_left_as_it_was() -> None:
    # 0.5 + 0.7 is 1.2; a share of 0.7 / 1.2 in 1.2 would be 0.7000000000000001, and a reason.
    state = open_accounts(1, 2, 10_000.0)
    rules = free_rules(max_exposure=1.2, max_leverage=2.0)
    verdict = assess(state, weight(0.5, 0.7), flat([10.0, 10.0]), rules)
    assert verdict.reasons[0].tolist() == [0, 0]
    assert verdict.shares[0].tolist() == [500.0, 700.0]


@pytest.mark.parametrize("shares", [400.0, -400.0])
def test_what_is_held_counts_before_what_is_asked(shares: float) -> None:
    state = open_accounts(1, 2, 10_000.0).but(shares=np.array([[shares, 0.0]]))
    rules = free_rules(max_exposure=0.6)
    # 0.4 is held, long or short, and kept; 0.2 of 0.6 is left for the other.
    verdict = assess(state, weight(HOLD, 0.5), flat([10.0, 10.0]), rules)
    assert verdict.allowed[0].tolist() == pytest.approx([HOLD, 0.2], nan_ok=True)


def test_weight_one_is_the_fraction_of_equity_that_may_be_used() -> None:
    # Half of 10,000 at 100 is 50 shares; 0.6 of them is 30.
    verdict = assess(FLAT, weight(0.6), flat(100.0), free_rules(fraction=0.5))
    assert (verdict.unit[0, 0], verdict.shares[0, 0]) == (50.0, 30.0)
    assert verdict.allowed[0, 0] == 0.6


def test_an_account_without_equity_is_allowed_nothing_and_that_is_a_number() -> None:
    broke = FLAT.but(equity=np.array([0.0]), halted=np.array([True]))
    verdict = assess(broke, weight(0.8), flat(100.0), free_rules())
    assert (verdict.unit[0, 0], verdict.allowed[0, 0]) == (0.0, 0.0)


def test_the_bits_in_a_ledger_keep_their_meaning() -> None:
    bits = {reason.name: int(reason) for reason in Reason}
    assert bits == {
        "SHORT_DENIED": 1, "VOLATILITY_SIZED": 2, "POSITION_LIMIT": 4, "EXPOSURE_LIMIT": 8,
        "LEVERAGE_LIMIT": 16, "DRAWDOWN_REDUCED": 32, "COOLDOWN": 64, "NO_TRADE_BAND": 128,
        "HALTED": 256, "ACCOUNT_CLIP": 512, "STALE_PRICE": 1024,
    }  # fmt: skip


def test_every_reason_has_words() -> None:
    everything = sum(Reason)
    assert len(describe(everything)) == len(Reason)
    assert describe(0) == []


def test_every_intervention_is_logged() -> None:
    """Whatever differs between asked and allowed has a reason, in a wild run."""
    rng = np.random.default_rng(1)
    rules, state = every_rule(), open_accounts(500, 1, 10_000.0)
    state = state.but(
        shares=np.round(rng.normal(0, 40, (500, 1))),
        weight_scale=np.where(rng.random(500) < 0.3, 0.5, 1.0),
        halted=rng.random(500) < 0.1,
        entry_from=np.round(rng.uniform(-3, 3, (500, 1))),
    )
    asked = np.where(rng.random((500, 1)) < 0.3, np.nan, rng.uniform(-2, 2, (500, 1)))
    verdict = assess(state, asked, flat(100.0, volatility=0.5), rules)
    same = np.isclose(verdict.allowed, asked, equal_nan=True)
    assert np.array_equal(verdict.reasons == 0, same)
    assert 50 < np.count_nonzero(same) < 450


def test_a_drawdown_reduces_and_then_halts() -> None:
    rules = free_rules(reduce_drawdown=0.10, reduce_factor=0.5, halt_drawdown=0.30)
    bars = [flat(100.0), flat(100.0), flat(88.0), flat(88.0), flat(40.0), flat(40.0)]
    found = live(rules, *bars, asks=[1.0, HOLD, HOLD, HOLD, HOLD])
    states = [s.state for s in found]
    assert [int(s.risk_state[0]) for s in states] == [ACTIVE, REDUCING, REDUCING, HALTED, HALTED]
    # Half of 100 is sold when the reduction begins, and only once; all when halted.
    assert [s.shares[0, 0] for s in states] == [100, 100, 50, 50, 0]
    assert [bool(s.terminated[0]) for s in states] == [False, False, False, True, True]


def test_a_halt_is_for_good() -> None:
    """What could not be sold recovers; the account stays halted all the same."""
    rules = free_rules(halt_drawdown=0.30)
    bars = [flat(100.0), flat(100.0), flat(60.0), flat(100.0, volume=0.0), flat(100.0)]
    states = [s.state for s in live(rules, *bars, asks=[1.0, HOLD, HOLD, 1.0])]
    assert [int(s.risk_state[0]) for s in states] == [ACTIVE, HALTED, HALTED, HALTED]
    assert [s.shares[0, 0] for s in states] == [100, 100, 100, 0]


def test_a_recovery_ends_the_reduction() -> None:
    rules = free_rules(reduce_drawdown=0.10)
    bars = [flat(100.0), flat(100.0), flat(88.0), flat(95.0)]
    states = [s.state for s in live(rules, *bars, asks=[1.0, HOLD, 1.0])]
    # After the cut 50 shares at 88: 8,800 + 50 × 7 = 9,150 is 8.5 % below the peak.
    assert [int(s.risk_state[0]) for s in states] == [ACTIVE, REDUCING, ACTIVE]


def test_a_stop_starts_the_cooldown() -> None:
    rules = free_rules(stop_loss=0.05, cooldown_bars=2)
    fall = bar(100, 100, 94, 95)
    bars = [flat(100.0), fall, flat(95.0), flat(95.0), flat(95.0)]
    found = live(rules, *bars, asks=[1.0, 1.0, 1.0, 1.0])
    assert [s.state.cooldown[0, 0] for s in found] == [2, 1, 0, 0]
    # Denied at the close of the stop and at the next; allowed at the third.
    assert [s.state.shares[0, 0] for s in found] == [0, 0, 0, 100]


def test_the_peak_rolls() -> None:
    """It reaches back 16 bars at least, and a block of 2 more at most."""
    rules = free_rules(drawdown_window_bars=16)
    bars = [flat(100.0), flat(100.0), flat(200.0), *[flat(100.0)] * 20]
    states = [s.state for s in live(rules, *bars, asks=[1.0, *[HOLD] * 21])]
    top = next(i for i, s in enumerate(states) if s.equity[0] == 20_000.0)
    seen = [i - top for i, s in enumerate(states) if s.peak[0] == 20_000.0]
    assert seen == list(range(len(seen)))
    assert 16 <= seen[-1] <= 18


def test_rules_are_what_params_say() -> None:
    rules = Rules.of(
        settings.Account(fraction=0.9),
        settings.Costs(slippage_bps=5.0, commission_bps=0.0),
        settings.RiskLimits(stop_loss=0.07),
    )
    assert (rules.fraction, rules.slippage_rate, rules.commission_rate) == (0.9, 0.0005, None)
    assert (rules.stop_loss, rules.take_profit) == (0.07, None)
    assert rules.but(stop_loss=None).stop_loss is None
