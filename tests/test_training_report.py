"""The report: everything a risk committee asks for, in one file without a network."""

import numpy as np
import pytest
from backtest_kit import FREE, apple, scaler

from core.settings import Gate
from features.dataset import Dataset
from features.scaler import Scaler
from registry.baselines import make_baseline
from registry.evidence import Evidence, Stress
from registry.gate import judge
from registry.policy import Policy
from training.backtest import BacktestResult, run
from training.report import Report, render
from training.splits import Window

__all__ = ["apple", "scaler"]  # fixtures


@pytest.fixture(scope="module")
def contenders(apple: Dataset, scaler: Scaler) -> dict[str, BacktestResult]:
    window = Window(apple.first_row, len(apple))
    return {
        kind: run(
            Policy.open(make_baseline(kind, apple.spec, scaler), 1),
            apple,
            scaler,
            FREE,
            window,
            1e5,
        )
        for kind in ("ma_crossover", "buy_and_hold", "flat")
    }


def test_a_report_shows_verdict_baselines_and_figures(
    contenders: dict[str, BacktestResult],
) -> None:
    subject, *others = contenders.values()
    evidence = Evidence(
        candidate=subject.returns,
        champion=None,
        baselines={"buy_and_hold": others[0].returns},
        seeds=np.stack([subject.returns] * 3),
        trials=6,
        trial_sharpe_variance=None,
        stress=Stress(
            costs={1: subject.returns, 2: 0.5 * subject.returns, 5: -subject.returns},
            delayed=subject.returns,
            capital={1: subject.returns, 10: subject.returns},
            capacity=10.0,
        ),
        market=others[0].returns,
    )
    verdict = judge(evidence, Gate())
    page = render(
        Report(
            title="aapl: candidate",
            subtitle="hold-out",
            contenders=contenders,
            bars_per_year=252,
            gate=verdict,
            evidence=evidence,
            choice=np.stack([subject.returns, others[0].returns]),
            folds=[contenders, contenders],
            fold_note="spans a fall of 44 %",
            curves={"seed 0": [{"steps": 10, "validation_score": 0.5}]},
            trials=[(0, 0.5, False), (1, None, True)],
            facts={"dataset": "abc123", "note": "<script>"},
        )
    )
    for wanted in (
        *("Equity and drawdown", "Trades and position", "Rolling Sharpe", "Walk-forward"),
        *("Learning curves", "Trials of the study", "spans a fall of 44 %", "abc123"),
        f"{subject.metrics['sharpe']:.2f}",
        verdict.verdict,
        "2 paths over the validation rows",
    ):
        assert wanted in page
    for reason in verdict.reasons:  # where a reason says it is shown, it is
        assert f"<h2 id='{reason.figure.lower().replace(' ', '-')}'>" in page or not reason.figure
    assert "<a href='#stress'>Stress</a>" in page
    assert "&lt;script&gt;" in page
    head, body = page.split("<script>", 1)[0], page.split("</script>", 1)[1]
    assert "http" not in head
    assert 'src="' not in body
    assert len(page) < 6e6


def test_an_undefined_measure_is_a_dash(contenders: dict[str, BacktestResult]) -> None:
    page = render(Report("flat", "", {"flat": contenders["flat"]}, 252))
    assert "<td>–</td>" in page
    assert "nan" not in page.split("</script>")[1].split("<h2 id='equity")[0]
