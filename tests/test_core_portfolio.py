"""Limits of the whole account: they clip what grows, and nothing else."""

import math
from dataclasses import replace

import numpy as np
import pytest
from core_kit import flat, free_rules
from hypothesis import given
from hypothesis import strategies as st

from core import settings
from core.accounts import open_accounts
from core.engine import submit
from core.portfolio import AccountLimits, Claim, applied, clips
from core.risk import Reason

NONE = AccountLimits({})
A = Claim("a", "SPY", 100.0, 10_000.0, held=0.0, wanted=80.0, decided=True)
B = Claim("b", "SPY", 100.0, 10_000.0, held=0.0, wanted=40.0, decided=True)
C = Claim("c", "TNA", 50.0, 10_000.0, held=0.0, wanted=120.0, decided=True)


def allowed(limits: AccountLimits, *claims: Claim) -> dict[str, float]:
    found = {claim.agent: claim.wanted for claim in claims}
    return found | {clip.agent: clip.allowed for clip in clips(claims, limits)}


def test_without_limits_nothing_is_clipped() -> None:
    assert NONE.off
    assert clips([A, B, C], NONE) == ()


def test_limits_are_what_params_say_and_what_they_leave_out_is_no_limit() -> None:
    stated = settings.Portfolio(allocation={"a": 0.3}, max_exposure=0.8)
    assert AccountLimits.of(stated) == AccountLimits({"a": 0.3}, 0.8, math.inf)
    assert AccountLimits.of(settings.Portfolio(max_symbol=0.5)) == AccountLimits({}, math.inf, 0.5)
    assert AccountLimits.of(settings.Portfolio()).off


@pytest.mark.parametrize(
    "limits",
    [AccountLimits({"a": 0.3}), AccountLimits({}, max_exposure=0.8), AccountLimits({}, 9.0, 0.5)],
)
def test_one_limit_alone_is_on(limits: AccountLimits) -> None:
    assert not limits.off
    assert not replace(limits, max_symbol=0.5).off


def test_growth_is_shared_in_proportion() -> None:
    # 30,000 × 0.3 = 9,000 for 8,000 + 4,000 + 6,000: half of each.
    limits = AccountLimits({}, max_exposure=0.3)
    assert allowed(limits, A, B, C) == {"a": 40.0, "b": 20.0, "c": 60.0}


def test_a_symbol_is_limited_across_sleeves() -> None:
    # 30,000 × 0.2 = 6,000 for 12,000 of SPY: half; TNA wants 6,000, which is allowed.
    limits = AccountLimits({}, max_symbol=0.2)
    assert allowed(limits, A, B, C) == {"a": 40.0, "b": 20.0, "c": 120.0}
    (first, _) = clips([A, B, C], limits)
    assert first.words == "symbol limit 20% of 30,000"


def test_a_clip_names_the_limits_that_cut_and_no_other() -> None:
    # 6,000 of TNA are within 10,500; all three together want more than 9,000.
    (found,) = [c for c in clips([A, B, C], AccountLimits({}, 0.3, 0.35)) if c.agent == "c"]
    assert found.words == "exposure limit 30% of 30,000"
    both = clips([A, B, C], AccountLimits({"a": 0.1}, 0.2))
    assert both[0].words == "allocation 10% of 30,000; exposure limit 20% of 30,000"


def test_a_limit_cuts_what_the_one_before_has_left() -> None:
    # Allocation leaves a 3,000; of 3,000 + 4,000 + 6,000 the account allows 6,000: 6 / 13 of each.
    limits = AccountLimits({"a": 0.1}, max_exposure=0.2)
    assert allowed(limits, A, B, C) == {"a": 13.0, "b": 18.0, "c": 55.0}


def test_without_equity_nothing_is_bought() -> None:
    limits = AccountLimits({}, max_exposure=2.0)
    for equity in (0.0, -50.0):
        assert allowed(limits, replace(A, price=0.5, equity=equity, wanted=2.0)) == {"a": 0.0}


def test_an_agent_has_its_allocation() -> None:
    assert allowed(AccountLimits({"a": 0.1}), A, B, C) == {"a": 30.0, "b": 40.0, "c": 120.0}


def test_what_is_held_is_never_sold_for_a_limit() -> None:
    held = replace(A, held=70.0)
    # 7,000 are held and stay, 1,500 × 0.? of the 9,000: 2,000 left for 1,000 + 4,000 + 6,000.
    limits = AccountLimits({}, max_exposure=0.3)
    assert allowed(limits, held, B, C) == {"a": 71.0, "b": 7.0, "c": 21.0}
    short = replace(A, held=-70.0, wanted=-80.0)
    assert allowed(limits, short, B, C) == {"a": -71.0, "b": 7.0, "c": 21.0}
    tight = AccountLimits({}, max_exposure=0.001)
    assert allowed(tight, held, B, C) == {"a": 70, "b": 0, "c": 0}
    assert allowed(tight, held, replace(B, price=0.5)) == {"a": 70, "b": 0}
    assert allowed(tight, replace(A, held=1.0, wanted=1.0)) == {"a": 1.0}


def test_a_sale_is_free_and_of_a_reversal_the_exit() -> None:
    limits = AccountLimits({}, max_exposure=0.01)
    sells = replace(A, held=100.0, wanted=80.0)
    reverses = replace(B, held=100.0, wanted=-40.0)
    leaves = replace(C, held=100.0, wanted=0.0)
    assert allowed(limits, sells, reverses, leaves) == {"a": 80.0, "b": 0.0, "c": 0.0}


def test_orders_on_their_way_count_and_are_left_alone() -> None:
    working = replace(A, decided=False)
    limits = AccountLimits({}, max_exposure=0.3)
    # 8,000 are on their way: 1,000 left for 4,000 + 6,000.
    assert allowed(limits, working, B, C) == {"a": 80.0, "b": 4.0, "c": 12.0}


def test_shorts_on_their_way_count_as_longs_do() -> None:
    limits = AccountLimits({}, max_exposure=0.3)
    # 80 shares short at 100, be they wanted or still held: 1,000 left for 4,000 + 6,000.
    opening = replace(A, held=-20.0, wanted=-80.0, decided=False)
    covering = replace(A, held=-80.0, wanted=-20.0, decided=False)
    assert allowed(limits, opening, B, C) == {"a": -80.0, "b": 4.0, "c": 12.0}
    assert allowed(limits, covering, B, C) == {"a": -20.0, "b": 4.0, "c": 12.0}


shares = st.integers(-500, 500).map(float)
CLAIMS = st.lists(
    st.builds(
        Claim,
        agent=st.uuids().map(str),
        symbol=st.sampled_from(["SPY", "TNA", "AAPL"]),
        price=st.floats(0.5, 900.0),
        equity=st.floats(0.0, 1e6),
        held=shares,
        wanted=shares,
        decided=st.booleans(),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda claim: claim.agent,
)
FRACTION = st.one_of(st.just(math.inf), st.floats(0.01, 2.0))


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Claim], AccountLimits]:
    claims = draw(CLAIMS)
    named = draw(st.lists(st.sampled_from([claim.agent for claim in claims]), unique=True))
    allocation = {agent: draw(st.floats(0.01, 2.0)) for agent in named}
    return claims, AccountLimits(allocation, draw(FRACTION), draw(FRACTION))


@given(problems())
def test_a_clip_raises_no_exposure_flips_no_sign_and_sells_nothing(
    problem: tuple[list[Claim], AccountLimits],
) -> None:
    claims, limits = problem
    by_agent = {claim.agent: claim for claim in claims}
    for clip in clips(claims, limits):
        claim = by_agent[clip.agent]
        assert abs(clip.allowed) < abs(claim.wanted)
        assert clip.allowed * claim.wanted >= 0.0
        assert abs(clip.allowed) >= claim.fixed
        assert clip.allowed == int(clip.allowed)


@given(problems())
def test_after_the_clips_whatever_could_fit_fits(
    problem: tuple[list[Claim], AccountLimits],
) -> None:
    claims, limits = problem
    left = allowed(limits, *claims)
    equity = math.fsum(claim.equity for claim in claims)

    def within(chosen: list[Claim], most: float) -> bool:
        if math.isinf(most):
            return True
        fixed = sum(claim.fixed * claim.price for claim in chosen)
        held = sum(
            (abs(left[claim.agent]) if claim.decided else claim.fixed) * claim.price
            for claim in chosen
        )
        return held <= max(most * equity, fixed) * (1.0 + 1e-9) + 1e-6

    assert within(claims, limits.max_exposure)
    for symbol in {claim.symbol for claim in claims}:
        assert within([claim for claim in claims if claim.symbol == symbol], limits.max_symbol)
    for claim in claims:
        assert within([claim], limits.allocation.get(claim.agent, math.inf))


@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_agents_does_not_matter_to_the_last_bit(
    problem: tuple[list[Claim], AccountLimits], random: "st.random.Random"
) -> None:
    claims, limits = problem
    shuffled = list(claims)
    random.shuffle(shuffled)
    assert allowed(limits, *shuffled) == allowed(limits, *claims)


def test_sums_are_exact_so_that_no_order_rounds_over_a_limit() -> None:
    # One after the other, 0.1 + 0.2 + 0.3 is 0.6000000000000001, which 0.6 would not allow.
    claims = [
        Claim(agent, "SPY", price, equity, held=0.0, wanted=1.0, decided=True)
        for agent, price, equity in (("a", 0.1, 0.6), ("b", 0.2, 0.0), ("c", 0.3, 0.0))
    ]
    limits = AccountLimits({}, max_exposure=1.0)
    assert clips(claims, limits) == clips(claims[::-1], limits) == ()


def test_a_clip_in_the_books_is_what_was_allowed_and_says_why() -> None:
    before, bar = open_accounts(1, 1, 10_000.0), flat(100.0)
    submitted = submit(before, np.array([[0.9]]), bar, free_rules())
    state, verdict = applied(before, submitted, 30.0, Reason.ACCOUNT_CLIP)
    assert float(submitted.state.pending_shares[0, 0]) == 90.0
    assert float(state.pending_shares[0, 0]) == 30.0
    assert float(verdict.allowed[0, 0]) == pytest.approx(0.3)
    assert float(verdict.asked[0, 0]) == 0.9
    assert int(verdict.reasons[0, 0]) == Reason.ACCOUNT_CLIP


def test_after_a_clip_only_what_is_not_held_yet_is_pending() -> None:
    before = open_accounts(1, 1, 10_000.0).but(shares=np.array([[20.0]]))
    submitted = submit(before, np.array([[0.9]]), flat(100.0), free_rules(max_weight=0.5))
    state, verdict = applied(before, submitted, 30.0, Reason.ACCOUNT_CLIP)
    assert float(state.pending_shares[0, 0]) == 10.0
    assert float(verdict.shares[0, 0]) == 30.0
    # Of what risk said before, nothing is forgotten.
    assert int(verdict.reasons[0, 0]) == Reason.POSITION_LIMIT | Reason.ACCOUNT_CLIP


def test_a_stale_price_keeps_shares_and_orders() -> None:
    before = open_accounts(1, 1, 10_000.0).but(
        shares=np.array([[20.0]]), pending_shares=np.array([[5.0]])
    )
    submitted = submit(before, np.array([[0.9]]), flat(100.0), free_rules())
    state, verdict = applied(before, submitted, math.nan, Reason.STALE_PRICE)
    assert float(state.pending_shares[0, 0]) == 5.0
    assert float(verdict.shares[0, 0]) == 25.0
    assert math.isnan(float(verdict.allowed[0, 0]))
    assert int(verdict.reasons[0, 0]) & Reason.STALE_PRICE
