"""The report: one HTML file that stands alone and holds the whole case for or against a policy.

Owns its order and its words. Everything shown was computed elsewhere; Plotly's script is inside
the file, so that it opens without a network, for ever.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go
import plotly.offline

from registry import verdict as tests
from registry.evidence import Evidence
from registry.verdict import GateReport
from training import figures
from training.attribution import PARTS, totals
from training.backtest import BacktestResult

Trial = tuple[int, float | None, bool]  # number, validation score, pruned
MOST_TRADES = 200  # shown; the whole log is stored beside the report

COLUMNS = (
    ("total_return", "return", "{:+.1%}"),
    ("cagr", "a year", "{:+.1%}"),
    ("volatility", "volatility", "{:.1%}"),
    ("sharpe", "Sharpe", "{:.2f}"),
    ("sortino", "Sortino", "{:.2f}"),
    ("calmar", "Calmar", "{:.2f}"),
    ("max_drawdown", "max drawdown", "{:.1%}"),
    ("win_rate", "win rate", "{:.0%}"),
    ("profit_factor", "profit factor", "{:.2f}"),
    ("trades", "trades", "{:.0f}"),
    ("turnover", "turnover a year", "{:.1f}"),
    ("exposure", "exposure", "{:.0%}"),
)

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2733;
max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:.2rem}h2{margin:2.2rem 0 .4rem;font-size:1.2rem}
p.note{color:#5b6875;margin:.2rem 0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .55rem;border-bottom:1px solid #e6eaef;text-align:right}
th:first-child,td:first-child,td.text,th.text{text-align:left}
tr.first{background:#eef4fe;font-weight:600}.verdict{display:inline-block;padding:.25rem .8rem;
border-radius:1rem;color:#fff;font-weight:600}.promote{background:#18794e}.refuse{background:#c62a2f}
.insufficient{background:#ad5700}td.passed{color:#18794e}td.failed{color:#c62a2f;font-weight:600}
details{margin:.6rem 0}summary{cursor:pointer}
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What a report shows; empty parts are left out."""

    title: str
    subtitle: str  # what was tested on which bars
    contenders: Mapping[str, BacktestResult]  # on the same bars; the first is the subject
    bars_per_year: float
    gate: GateReport | None = None
    evidence: Evidence | None = None  # what the gate looked at
    choice: np.ndarray | None = None  # (paths, T) the trials chosen elsewhere, on validation rows
    folds: Sequence[Mapping[str, BacktestResult]] = ()
    fold_note: str = ""  # such as the crash the folds span
    curves: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    trials: Sequence[Trial] = ()
    facts: Mapping[str, str] = field(default_factory=dict)  # lineage


def render(report: Report) -> str:
    """Return the report as one HTML document."""
    subject = next(iter(report.contenders.values()))
    parts = [
        f"<h1>{html.escape(report.title)}</h1><p class=note>{html.escape(report.subtitle)}</p>"
    ]
    if report.gate is not None:
        parts.append(_gate(report.gate))
    parts += [
        "<h2>Results, after costs, out of sample</h2>",
        metrics_table(report.contenders),
        _figure(tests.EQUITY, figures.equity(report.contenders)),
        _figure("Trades and position", figures.trades(subject)),
        _figure("Rolling Sharpe ratio", figures.rolling(report.contenders, report.bars_per_year)),
        _figure("Returns", figures.returns(report.contenders)),
    ]
    if report.evidence is not None:
        parts += _judged(report.evidence, report.bars_per_year)
    if report.choice is not None:
        parts.append(_choice(report.choice, report.bars_per_year))
    if report.folds:
        parts.append(_figure(tests.LEARNED, figures.walk_forward(report.folds), report.fold_note))
    if report.curves:
        parts.append(_figure("Learning curves of the seeds", figures.learning(report.curves)))
    if report.trials:
        parts.append(_figure("Trials of the study", figures.study(report.trials)))
    parts += [_attribution(report.contenders), _trades(subject), _facts(report.facts)]
    script = plotly.offline.get_plotlyjs()
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(report.title)}"
        f"</title><style>{STYLE}</style><script>{script}</script><body>{''.join(parts)}</body></html>"
    )


def metrics_table(contenders: Mapping[str, BacktestResult]) -> str:
    """Return every measure of every contender as an HTML table, the subject first."""
    head = "".join(f"<th>{title}</th>" for _, title, _ in COLUMNS)
    rows = []
    for number, (name, result) in enumerate(contenders.items()):
        cells = "".join(f"<td>{_shown(result.metrics[key], form)}</td>" for key, _, form in COLUMNS)
        mark = " class=first" if number == 0 else ""
        rows.append(f"<tr{mark}><td>{html.escape(name)}</td>{cells}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _judged(evidence: Evidence, per_year: float) -> list[str]:
    """Return the figures of what the gate looked at beyond the contenders' own curves."""
    parts = []
    if evidence.seeds.shape[1] > 1:
        parts.append(_figure(tests.SEEDS, figures.seeds(evidence.seeds), "on the same bars"))
    if evidence.stress is not None:
        note = (
            "the shipped seed at multiples of the costs, with every decision one bar late, and "
            "with more capital than the market's volume bears"
        )
        parts.append(_figure(tests.STRESS, figures.stress(evidence.stress, per_year), note))
    if evidence.market is not None:
        drawn = figures.regimes(evidence.candidate, evidence.market)
        parts.append(_figure(tests.REGIMES, drawn, "a bar can belong to several, or to none"))
    return parts


def _choice(walks: np.ndarray, per_year: float) -> str:
    note = (
        f"{len(walks)} paths over the validation rows; on each part a path trades the trial that "
        "was best on other parts (combinatorial purged cross-validation)"
    )
    return _figure(tests.CHOICE, figures.choice(walks, per_year), note)


def _gate(gate: GateReport) -> str:
    kind = gate.verdict.split()[0]
    rows = "".join(
        f"<tr><td class={'passed' if r.passed else 'failed'}>{'passed' if r.passed else 'failed'}"
        f"</td><td class=text>{html.escape(r.test)}</td><td class=text>{html.escape(r.sentence)}"
        f"</td><td>{_shown(r.value, '{:.3f}')}</td><td>{_shown(r.threshold, '{:.3f}')}</td>"
        f"<td class=text>{_link(r.figure)}</td></tr>"
        for r in gate.reasons
    )
    return (
        f"<p><span class='verdict {kind}'>{html.escape(gate.verdict)}</span> "
        f"over {gate.bars} bars, {gate.trials} trials, {gate.looks} earlier looks at these bars</p>"
        "<table><tr><th></th><th class=text>test</th><th class=text>what it found</th>"
        f"<th>value</th><th>threshold</th><th class=text>shown in</th></tr>{rows}</table>"
    )


def _figure(title: str, figure: go.Figure, note: str = "") -> str:
    drawn = figure.to_html(full_html=False, include_plotlyjs=False)
    said = f"<p class=note>{html.escape(note)}</p>" if note else ""
    return f"<h2 id='{_anchor(title)}'>{html.escape(title)}</h2>{said}{drawn}"


def _link(title: str) -> str:
    return f"<a href='#{_anchor(title)}'>{html.escape(title)}</a>" if title else ""


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _attribution(contenders: Mapping[str, BacktestResult]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("profit", *PARTS))
    rows = []
    for name, result in contenders.items():
        sums = totals(result)
        cells = "".join(f"<td>{sums[part]:+,.0f}</td>" for part in ("profit", *PARTS))
        rows.append(f"<tr><td>{html.escape(name)}</td>{cells}</tr>")
    return (
        "<h2>What the result is due to</h2><p class=note>account currency; market: what the "
        "average exposure earned; timing: being in more or less than that; costs: commission and "
        "slippage; risk: what limits, stops and targets changed</p>"
        f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"
    )


def _trades(subject: BacktestResult) -> str:
    if not subject.trades:
        return "<h2>Trades</h2><p class=note>none</p>"
    newest = subject.trades[-MOST_TRADES:]
    rows = "".join(
        f"<tr><td>{str(t.entry_time)[:16]}</td><td>{str(t.exit_time)[:16]}</td>"
        f"<td>{t.side * t.shares:.0f}</td><td>{t.entry_price:.2f}</td><td>{t.exit_price:.2f}</td>"
        f"<td>{t.profit:+,.0f}</td><td>{t.profit_fraction:+.1%}</td><td>{t.bars_held}</td>"
        f"<td>{t.adverse:.1%}</td><td>{t.favourable:.1%}</td><td>{t.exit_reason}</td></tr>"
        for t in newest
    )
    held = sum(t.bars_held for t in subject.trades) / len(subject.trades)
    still = sum(not t.closed for t in subject.trades)
    counted = f"{len(subject.trades) - still} trades" + (
        f" and {still} still open" if still else ""
    )
    return (
        f"<h2>Trades</h2><p class=note>{counted}, held {held:.1f} bars on "
        f"average</p><details><summary>the newest {len(newest)}</summary><table><tr><th>entry</th>"
        "<th>exit</th><th>shares</th><th>in at</th><th>out at</th><th>profit</th><th>%</th>"
        "<th>bars</th><th>worst</th><th>best</th><th>left by</th></tr>"
        f"{rows}</table></details>"
    )


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td><td class=text>{html.escape(value)}</td></tr>"
        for key, value in facts.items()
    )
    return f"<h2>Where it comes from</h2><table>{rows}</table>" if facts else ""


def _shown(value: float, form: str) -> str:
    return "–" if value != value else form.format(value)
