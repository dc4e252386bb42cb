"""The gate promotes what is better, refuses what is not, and says why."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from registry_kit import BARS, QUICK, YEAR, strong, world

from core.errors import RegistryError
from core.settings import Gate
from registry.evidence import Stress
from registry.gate import judge
from registry.resampling import moments, stationary_bootstrap
from registry.selection import Overfitting
from registry.significance import (
    deflated_sharpe,
    expected_maximum_sharpe,
    max_drawdown,
    probabilistic_sharpe,
    share_better,
    sharpe_ratio,
)
from registry.trials import Counted
from registry.verdict import GateReport, Reason


def test_the_deflated_sharpe_ratio_equals_the_papers_example() -> None:
    # Bailey and López de Prado (2014): 100 trials, variance of annual Sharpe ratios 1/2, five
    # years of 250 daily bars, annual Sharpe 2.5, skewness -3, kurtosis 10.
    benchmark = expected_maximum_sharpe(100, 0.5 / 250)
    assert round(benchmark, 4) == 0.1132
    sharpe = 2.5 / 250**0.5
    assert round(probabilistic_sharpe(sharpe, benchmark, 1250, -3.0, 10.0), 4) == 0.9004
    # "had the strategist made her discovery after running only N = 46 independent trials, …"
    fewer = expected_maximum_sharpe(46, 0.5 / 250)
    assert round(probabilistic_sharpe(sharpe, fewer, 1250, -3.0, 10.0), 4) == 0.9505


def test_one_trial_is_no_choice() -> None:
    assert expected_maximum_sharpe(1, 0.5) == 0.0
    assert expected_maximum_sharpe(10, 0.01) < expected_maximum_sharpe(20, 0.01)


def test_the_expected_maximum_is_what_simulation_shows() -> None:
    best = np.random.default_rng(0).normal(0.0, 0.05, size=(20_000, 25)).max(axis=1).mean()
    assert abs(expected_maximum_sharpe(25, 0.05**2) / best - 1.0) < 0.02


def test_a_series_that_does_not_move_has_sharpe_zero() -> None:
    assert sharpe_ratio(np.zeros(50)) == 0.0
    assert sharpe_ratio(np.full(50, 0.001)) == 0.0
    assert deflated_sharpe(np.zeros(50), 0.0) == 0.0
    # mean 2, deviation 1 (ddof 1) of 1, 2, 3
    assert sharpe_ratio(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)


def test_drawdown_counts_from_the_opening_equity() -> None:
    assert max_drawdown(np.array([-0.1, 0.5, -0.2])) == pytest.approx(0.2)
    assert max_drawdown(np.array([-0.1, -0.1, 1.0])) == pytest.approx(0.19)


def test_bootstrap_blocks_have_the_mean_length_and_cover_evenly() -> None:
    rows = stationary_bootstrap(500, 400, 10.0, np.random.default_rng(1))
    assert rows.shape == (400, 500)
    follows = rows[:, 1:] == (rows[:, :-1] + 1) % 500
    # A new block begins with probability 1/10, less the 1 in 500 that happens to follow on.
    assert abs(1.0 - follows.mean() - 0.1 * (1 - 1 / 500)) < 0.003
    assert abs(np.bincount(rows.ravel(), minlength=500) / 400 - 1.0).max() < 0.35


def test_moments_are_those_of_the_resampled_rows() -> None:
    series = np.random.default_rng(3).normal(5.0, 0.01, (2, 150))
    series = np.concatenate([series, np.full((1, 150), 0.1)])
    found = moments(series, 300, 7.0, np.random.default_rng(4))
    rng = np.random.default_rng(4)
    rows = np.concatenate([stationary_bootstrap(150, n, 7.0, rng) for n in (256, 44)])
    assert found.mean == pytest.approx(series[:, rows].mean(axis=2), abs=1e-12)
    assert found.deviation == pytest.approx(series[:, rows].std(axis=2, ddof=1), abs=1e-12)
    assert not found.deviation[2].any()  # what does not move, does not move in any resample


def test_bootstrap_is_the_same_in_one_chunk_and_many() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.001, 0.01, 300), rng.normal(0.0, 0.01, 300)
    first = share_better(a, [b, np.zeros(300), a], 700, 10, np.random.default_rng(0))
    again = share_better(a, [b, np.zeros(300), a], 700, 10, np.random.default_rng(0))
    assert first == again
    assert first[2] == 0.0  # a tie is not better


def test_no_edge_is_hardly_ever_promoted_and_a_strong_edge_mostly() -> None:
    rng = np.random.default_rng(11)
    passed = {
        edge: np.mean([judge(world(edge, rng), QUICK).passed for _ in range(count)])
        for edge, count in ((0.0, 100), (2.0, 40), (3.0, 40))
    }
    assert passed[0.0] <= 0.05  # the nominal level; measured far below, for the tests are joined
    assert 0.3 < passed[2.0] < 0.9  # t = 2.7 over 470 bars: neither always no nor always yes
    assert passed[3.0] > 0.75


def test_the_difference_test_keeps_its_level() -> None:
    rng = np.random.default_rng(12)
    shares = []
    for _ in range(250):
        common = rng.normal(0.0004, 0.01, 300)
        a, b = (common + rng.normal(0.0, 0.006, 300) for _ in range(2))
        shares += share_better(a, [b], 200, 10, rng)
    # Nominal 0.10 and 0.05, the levels the gate asks for; standard errors 0.019 and 0.014.
    assert 0.05 < np.mean(np.array(shares) >= 0.90) < 0.15
    assert 0.01 < np.mean(np.array(shares) >= 0.95) < 0.09


def reason(report: GateReport, test: str, subject: str | None = None) -> Reason:
    return next(r for r in report.reasons if r.test == test and subject in (None, r.subject))


def test_a_clear_winner_is_promoted_with_every_reason() -> None:
    report = judge(strong(), Gate())
    assert report.verdict == "promote"
    assert report.passed
    assert report.summary == "promote: passed all 10 tests"
    assert [r.subject for r in report.reasons if r.test == "difference"] == [
        "champion",
        "flat",
        "buy_and_hold",
        "random",
    ]


def test_a_short_holdout_decides_nothing() -> None:
    evidence = strong()
    short = replace(
        evidence,
        candidate=evidence.candidate[:199],
        champion=None,
        baselines={"flat": np.zeros(199)},
        seeds=evidence.seeds[:, :199],
    )
    report = judge(short, Gate())
    assert report.verdict == "insufficient evidence"
    assert "has 199 bars that nobody was trained or tuned on, needs 200" in report.summary


def test_the_champion_does_not_beat_itself() -> None:
    evidence = replace(strong(), champion=strong().candidate)
    report = judge(evidence, QUICK)
    assert report.verdict == "refuse"
    assert reason(report, "difference", "champion").value == 0.0


def test_the_walk_forward_is_part_of_the_record_and_the_champion_is_not() -> None:
    weak = world(1.5, np.random.default_rng(8))
    before = world(1.5, np.random.default_rng(9))
    joined = replace(weak, walk_forward=before.candidate, walk_baselines=before.baselines)
    alone, both = judge(weak, QUICK), judge(joined, QUICK)
    told = "over 940 out-of-sample bars (470 of them walk-forward)"
    assert told in reason(both, "deflated").sentence
    assert told in reason(both, "difference", "flat").sentence
    assert "over 470 hold-out bars" in reason(alone, "deflated").sentence
    assert "over 470 hold-out bars" in reason(both, "difference", "champion").sentence
    assert reason(both, "difference", "champion") == reason(alone, "difference", "champion")
    series = np.append(before.candidate, weak.candidate)
    luck = expected_maximum_sharpe(weak.trials, min((0.4 / YEAR) ** 2, 1 / 939))
    assert reason(both, "deflated").value == deflated_sharpe(series, luck)
    assert reason(both, "superiority").value < reason(alone, "superiority").value


def test_a_walk_of_other_folds_is_not_joined() -> None:
    walk = {"flat": np.zeros(9), "buy_and_hold": np.zeros(9), "random": np.zeros(8)}
    odd = replace(strong(), walk_forward=np.zeros(9), walk_baselines=walk)
    with pytest.raises(RegistryError, match=r"walk-forward returns of random have shape \(8,\)"):
        judge(odd, QUICK)
    with pytest.raises(RegistryError, match="flat walked the folds, expected the candidate and"):
        judge(replace(odd, walk_baselines={"flat": np.zeros(9)}), QUICK)


def test_more_trials_and_looks_raise_the_bar() -> None:
    evidence = world(2.6, np.random.default_rng(8))
    few = reason(judge(replace(evidence, trials=2), QUICK), "deflated")
    many = reason(judge(replace(evidence, trials=400), QUICK), "deflated")
    looked = reason(judge(replace(evidence, trials=2, looks=398), QUICK), "deflated")
    assert few.value > many.value
    assert looked.value == many.value
    assert "after 2 trials and 398 earlier looks at these bars" in looked.sentence


def test_differing_skill_among_trials_is_not_taken_for_luck() -> None:
    wild = replace(strong(), trial_sharpe_variance=(3.0 / YEAR) ** 2)
    unknown = replace(strong(), trial_sharpe_variance=None)
    assert reason(judge(wild, QUICK), "deflated") == reason(judge(unknown, QUICK), "deflated")


def test_alike_trials_count_as_what_they_are_worth() -> None:
    evidence = world(2.6, np.random.default_rng(8), trials=400)
    alike = judge(replace(evidence, effective_trials=1.6), QUICK)
    two = judge(replace(evidence, trials=2), QUICK)
    assert reason(alike, "deflated").value == reason(two, "deflated").value
    assert "after 400 trials (worth 2 independent ones)" in reason(alike, "deflated").sentence


def test_a_verdict_names_the_studies_whose_trials_it_counts() -> None:
    one = Counted("demo/a/1", 9)
    several = (one, Counted("demo/b/1", 4, 4), Counted("demo/c/1", 2), Counted("demo/d/1", 3))

    def said(*studies: Counted) -> str:
        return reason(judge(replace(strong(), studies=studies), QUICK), "deflated").sentence

    assert "after 9 trials of study demo/a/1 (9) luck" in said(one)
    assert (
        "after 9 trials of 4 studies, the newest demo/b/1 (4, 4 of them gone from the study "
        "database), demo/c/1 (2), demo/d/1 (3), luck"
    ) in said(*several)


def test_the_hardest_baseline_decides_hansens_test() -> None:
    found = reason(judge(strong(), QUICK), "superiority")
    assert found.passed
    assert f"against {found.subject}, the hardest of 3 baselines" in found.sentence
    strongest = dict(strong().baselines) | {"oracle": strong().seeds[0]}
    lost = reason(judge(replace(strong(), baselines=strongest), QUICK), "superiority")
    assert (lost.subject, lost.passed) == ("oracle", False)
    assert lost.value > 0.10


def test_exposure_is_neither_a_merit_nor_a_fault_in_hansens_test() -> None:
    evidence = strong()
    half = replace(evidence, seeds=0.5 * evidence.seeds)
    first, second = (reason(judge(one, QUICK), "superiority") for one in (evidence, half))
    assert first.value == pytest.approx(second.value)


def test_a_choice_that_loses_elsewhere_is_refused_and_says_so() -> None:
    def chosen(loss: float) -> Reason:
        found = Overfitting(9, (0,) * 70, 0.64, loss, 2.0 / YEAR, 0.1 / YEAR)
        return reason(judge(replace(strong(), overfitting=found), QUICK), "overfitting")

    assert chosen(0.60).passed
    refused = chosen(0.65)
    assert not refused.passed
    assert "loses on the others in 65% of 70 splits, may in 60%" in refused.sentence
    assert "Sharpe 2.00 where chosen, 0.10 where not" in refused.sentence
    assert "probability of backtest overfitting 0.64" in refused.sentence


def stressed(**changes: Any) -> Stress:
    good = strong().candidate
    usual: dict[str, Any] = {"delayed": good, "capacity": 40.0, "capital": {1: good}}
    return Stress(**({"costs": {1: good, 2: good, 5: -good}} | usual | changes))


def test_worse_conditions_decide_where_they_are_likely_and_are_shown_where_not() -> None:
    report = judge(replace(strong(), stress=stressed()), QUICK)
    assert report.passed  # losing at five times the costs is shown, not refused
    assert "at 2 times" in reason(report, "costs").sentence
    loses = -strong().candidate
    for test, changes in (
        ("costs", {"costs": {1: loses, 2: loses, 5: loses}}),
        ("delay", {"delayed": loses}),
        ("capacity", {"capacity": 1.9}),
    ):
        failed = judge(replace(strong(), stress=stressed(**changes)), QUICK)
        assert [r.test for r in failed.reasons if not r.passed] == [test]
    assert "half of its growth is left at 1.9 times its capital, needs 2.0 times" in (
        reason(failed, "capacity").sentence
    )


def test_a_regime_in_which_it_bleeds_is_named() -> None:
    evidence = strong()
    market = np.random.default_rng(0).normal(0.0, 0.01, BARS)
    market[100:160] = -0.01  # 45 % down: a crash from its seventeenth bar, and long after
    bled = evidence.candidate.copy()
    bled[120:200] = -0.018
    report = judge(replace(evidence, candidate=bled, market=market), QUICK)
    found = reason(report, "regimes")
    assert not found.passed
    assert found.value < -0.35
    assert f"worst in {found.subject}: {found.value:+.1%} over" in found.sentence
    calm = judge(replace(evidence, market=market), QUICK)
    assert reason(calm, "regimes").passed


def test_every_reason_but_the_length_says_which_figure_shows_it() -> None:
    found = Overfitting(9, (0,) * 70, 0.64, 0.1, 2.0, 0.1)
    whole = replace(
        strong(),
        overfitting=found,
        stress=stressed(),
        market=strong().baselines["buy_and_hold"],
        walk_forward=strong().candidate,
    )
    report = judge(whole, QUICK)
    assert [r.test for r in report.reasons if not r.figure] == ["length"]
    assert {r.test for r in report.reasons} == {
        *("length", "difference", "superiority", "deflated", "drawdown", "median seed"),
        *("worst seed", "walk-forward", "overfitting", "costs", "delay", "capacity", "regimes"),
    }


def test_a_verdict_from_before_figures_were_named_still_reads() -> None:
    content = judge(strong(), QUICK).to_json()
    for one in content["reasons"]:
        del one["figure"]
    assert GateReport.from_json(content).reasons[0].figure == ""


def test_a_deep_drawdown_is_refused() -> None:
    evidence = strong()
    crash = evidence.candidate.copy()
    crash[100:110] = -0.045
    report = judge(replace(evidence, candidate=crash), QUICK)
    failed = reason(report, "drawdown")
    assert not failed.passed
    assert failed.value > 1 - 0.955**10 - 1e-9  # 36.9 %
    assert "limit 35%" in failed.sentence
    assert report.verdict == "refuse"


def test_one_lucky_seed_is_not_enough() -> None:
    evidence = strong()
    unlucky = evidence.seeds.copy()
    unlucky[1:] -= 0.003
    report = judge(replace(evidence, seeds=unlucky), QUICK)
    assert not reason(report, "median seed").passed
    assert not reason(report, "worst seed").passed
    assert "must not lose more than 15%" in reason(report, "worst seed").sentence


def test_a_report_survives_json() -> None:
    report = judge(strong(), QUICK)
    again = GateReport.from_json(json.loads(json.dumps(report.to_json(), allow_nan=False)))
    assert again == report
    assert again.sha256 == report.sha256
    assert judge(strong(), QUICK).sha256 == report.sha256
    with pytest.raises(RegistryError, match="verdict 'maybe'"):
        GateReport.from_json(report.to_json() | {"verdict": "maybe"})
    with pytest.raises(RegistryError, match="not a gate report"):
        GateReport.from_json({})


def test_series_of_other_bars_are_not_compared() -> None:
    evidence = strong()
    with pytest.raises(RegistryError, match=r"champion have shape \(469,\), expected 470"):
        judge(replace(evidence, champion=np.zeros(469)), QUICK)
    with pytest.raises(RegistryError, match="returns of candidate"):
        judge(replace(evidence, candidate=np.full(BARS, np.nan)), QUICK)
    with pytest.raises(RegistryError, match=r"seeds have shape \(0, 470\)"):
        judge(replace(evidence, seeds=np.empty((0, BARS))), QUICK)
    with pytest.raises(RegistryError, match="0 trials and 0 looks"):
        judge(replace(evidence, trials=0), QUICK)
