"""Results as people read them: markdown and tables for a Prefect run, plain rows for a terminal.

Owns wording and layout of results that others computed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MEASURES = ("total_return", "sharpe", "max_drawdown", "trades")


def percent(value: float | None) -> str:
    """Return a fraction as a signed percentage, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:+.1f} %"


def number(value: float | None) -> str:
    """Return a number with two digits, or a dash where there is none."""
    return "–" if value is None else f"{value:.2f}"


def scoreboard(candidates: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return one row per contender: name, return, Sharpe, worst drawdown, trades."""
    return [
        {
            "who": who,
            "return": percent(metrics.get("total_return")),
            "Sharpe": number(metrics.get("sharpe")),
            "max drawdown": percent(metrics.get("max_drawdown")),
            "trades": int(metrics.get("trades", 0)),
        }
        for who, metrics in candidates.items()
    ]


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return ``rows`` as a markdown table; empty text for no rows."""
    if not rows:
        return ""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(str(row[head]) for head in heads) + " |" for row in rows]
    return "\n".join(lines)


def link(path: Path) -> str:
    """Return the address under which a browser opens a local file."""
    return path.resolve().as_uri()
