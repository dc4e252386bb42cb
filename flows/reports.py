"""Results as people read them: markdown and tables for a Prefect run and the terminal.

Owns wording and layout of results that others computed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from pipelines.backtest import Backtested
    from pipelines.monitor import Monitored
    from pipelines.retrain import Retrained


def percent(value: float | None) -> str:
    """Return a fraction as a signed percentage, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:+.1f} %"


def share(value: float | None) -> str:
    """Return a fraction as a percentage without a sign, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    """Return a number with two digits, or a dash where there is none."""
    return "–" if value is None else f"{value:.2f}"


def scoreboard(contenders: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return one row per contender: name, return, Sharpe, worst drawdown, trades."""
    return [
        {
            "who": who,
            "return": percent(metrics.get("total_return")),
            "Sharpe": number(metrics.get("sharpe")),
            "max drawdown": share(metrics.get("max_drawdown")),
            "trades": int(metrics.get("trades", 0)),
        }
        for who, metrics in contenders.items()
    ]


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return ``rows`` as a markdown table; empty text for no rows."""
    if not rows:
        return ""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(str(row[head]) for head in heads) + " |" for row in rows]
    return "\n".join(lines)


def retrained_markdown(done: "Retrained", mlflow: str) -> str:
    """Return the outcome of a retraining; ``mlflow`` is the address of its run, or empty."""
    aliases = f" ({', '.join(done.aliases)})" if done.aliases else ""
    lines = [
        f"# {done.agent}: {done.verdict}",
        f"Version {done.version}{aliases}, "
        + ("promoted to Production." if done.promoted else "not promoted."),
        *(f"- {reason}" for reason in done.reasons),
        "",
        "On the hold-out, after costs:",
        "",
        markdown_table(scoreboard(done.contenders)),
        "",
        f"[The run in MLflow]({mlflow})" if mlflow else f"MLflow run `{done.run_id}`.",
        *_files(done.reports),
    ]
    return "\n".join(lines)


def monitored_markdown(seen: "Monitored") -> str:
    """Return what a look for drift found."""
    lines = [
        f"# {seen.agent}: {'drift' if seen.drift else 'no drift'}",
        *(f"- {reason}" for reason in seen.reasons),
        *_files(seen.reports),
    ]
    return "\n".join(lines)


def _files(reports: Mapping[str, Path]) -> list[str]:
    # A browser does not follow a link from a page of the network to a file: a path to copy.
    return [f"- {name}: `{path}`" for name, path in reports.items()]


def retrained_table(done: "Retrained") -> Table:
    """Return the comparison on the hold-out for a terminal, the verdict above it."""
    outcome = "promoted to Production" if done.promoted else "not promoted"
    title = f"{done.agent} version {done.version}: {done.verdict}, {outcome}"
    return _comparison(title, done.reasons, done.contenders, done.reports)


def backtested_table(done: "Backtested") -> Table:
    """Return what a version and the baselines did on bars it had not seen."""
    span = f"{done.bars} unseen bars, {done.first:%Y-%m-%d} to {done.last:%Y-%m-%d}, after costs"
    title = f"{done.agent} version {done.version}: {span}"
    return _comparison(title, (), done.contenders, done.reports)


def _comparison(
    title: str,
    reasons: Sequence[str],
    contenders: Mapping[str, Mapping[str, float]],
    files: Mapping[str, Path],
) -> Table:
    table = Table(
        title=title,
        caption="\n".join([*reasons, *(f"{name}: {path}" for name, path in files.items())]),
        title_justify="left",
        caption_justify="left",
        box=None,
    )
    for row in scoreboard(contenders):
        if not table.columns:
            for head in row:
                table.add_column(head, justify="left" if head == "who" else "right")
        table.add_row(*(str(cell) for cell in row.values()))
    return table
