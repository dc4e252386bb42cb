"""The table of a benchmark: rows, what was measured, and how it compares with what was asked.

Pure: samples in, numbers and text out. Knows no process and no file.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

HEADINGS = ("work", "against", "unit", "Ratchet", "peer", "ratio", "asked", "reached")
RATCHET = "ratchet"  # label of our own side
LEFT = 2  # columns that are text


@dataclass(frozen=True, slots=True)
class Line:
    """What the table says in one line."""

    work: str
    peer: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    asked: str
    reached: bool | None  # None: nothing is asked of this line, or nothing was measured
    failed: bool = False  # one of both sides gave no figure


def rate(sample: Mapping[str, float], clock: str) -> float:
    """Return the amount per second of ``clock``: ``seconds`` or ``processor``."""
    return sample["amount"] / sample[clock]


def middle(samples: Sequence[Mapping[str, float]], clock: str) -> float:
    """Return the median rate."""
    return median(rate(sample, clock) for sample in samples)


def lines(row: Mapping[str, Any]) -> list[Line]:
    """Return the lines of one measured row (as the JSON holds it), one per peer."""
    samples, clock, asked = row["samples"], row["clock"], row["asked"]
    rates = {name: middle(taken, clock) for name, taken in samples.items()}
    theirs = {name: rates[name] for name in asked if name in rates}
    fastest = max(theirs, key=lambda name: theirs[name]) if theirs else ""
    ours = rates.get(RATCHET, math.nan)
    found = []
    for name, least in asked.items():
        ratio = ours / rates.get(name, math.nan)
        failed = math.isnan(ratio)
        concerned = failed or not row["fastest"] or name == fastest
        found.append(
            Line(
                row["work"],
                name,
                row["unit"],
                ours,
                rates.get(name, math.nan),
                ratio,
                f"{least:g}×" if concerned else "",
                ratio >= least if concerned and not failed else None,
                failed,
            )
        )
    return found


def limit_line(row: Mapping[str, Any]) -> Line:
    """Return the line of a row that is held against a limit, not against a peer."""
    most, beside = row["at_most"], row.get("beside")
    value = median(row["values"]) if row["values"] else math.nan
    failed = math.isnan(value)
    return Line(
        row["work"],
        row["against"],
        row["unit"],
        value,
        math.nan if beside is None else beside,
        value if row["unit"] == "times" else math.nan,
        f"≤ {most:g}",
        None if failed else value <= most,
        failed,
    )


def all_lines(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Return every line of the rows that were measured."""
    found: list[Line] = []
    for row in rows:
        if "samples" in row:
            found.extend(lines(row))
        elif "values" in row:
            found.append(limit_line(row))
    return found


def figure(value: float) -> str:
    """Return three significant digits: 1.23, 45.6, 789, 12,300."""
    if math.isnan(value):
        return "–"
    if value >= 1_000:
        digits = len(f"{value:.0f}") - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table as Markdown, which a terminal shows aligned too."""
    cells = [HEADINGS, *(_cells(line) for line in all_lines(rows))]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
    rule = ["-" * width if c < LEFT else "-" * (width - 1) + ":" for c, width in enumerate(widths)]
    shown = [_joined(cells[0], widths), _joined(tuple(rule), widths)]
    return "\n".join(shown + [_joined(row, widths) for row in cells[1:]])


def _cells(line: Line) -> tuple[str, ...]:
    reached = "failed" if line.failed else {True: "yes", False: "NO", None: ""}[line.reached]
    return (
        line.work,
        line.peer,
        line.unit,
        figure(line.ours),
        figure(line.theirs),
        figure(line.ratio),
        line.asked,
        reached,
    )


def _joined(cells: tuple[str, ...], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if column < LEFT else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"
