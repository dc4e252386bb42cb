"""The page of the calibration: promotion rates, intervals, months, and the power curve.

Owns words and tables. Everything in it is counted from the results of ``calibration.run``.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.errors import ConfigError
from registry.rates import Rate
from sources.files import write_whole
from training.power_curve import Point, draw

if TYPE_CHECKING:
    from pipelines.calibration import Result

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
MONTH_BARS = 21


def outcome(results: Sequence["Result"], commit: str) -> str:
    """Return the results as Markdown: who was promoted how often, and how soon."""
    rows = [
        "| markets | promoted | 95 % interval | Sharpe, candidate | buy & hold | best baseline | "
        "found after |",
        "|---|---|---|---|---|---|---|",
    ]
    without = [one for one in results if not one.history.edge]
    planted = [one for one in results if one.history.edge]
    for name in ("bootstrapped", "randomised"):
        rows += _row(f"no edge, {name}", [one for one in without if one.history.kind == name])
    rows += _row("**no edge, together**", without)
    for kind, edge in sorted({(one.history.kind, one.history.edge) for one in planted}):
        same = [one for one in planted if (one.history.kind, one.history.edge) == (kind, edge)]
        rows += _row(f"planted, {kind}, {edge:g}", same)
    hours = sum(one.seconds for one in results) / 3_600
    said = [
        f"{len(results)} histories at commit `{commit[:12]}`, {hours:.1f} processor hours.",
        "",
        *rows,
        "",
        "Sharpe ratios are medians over the hold-outs; *best baseline*: whichever did best "
        "there. *Found after*: median months of hold-out until the gate first says yes, asked once "
        "a quarter.",
    ]
    if without:
        said += ["", _refusals(without)]
    return "\n".join(said) + "\n"


def _row(name: str, results: Sequence["Result"]) -> list[str]:
    if not results:
        return []
    rate = Rate(sum(one.promoted for one in results), len(results))
    low, high = rate.interval()
    own = float(np.median([one.sharpe for one in results]))
    held = float(np.median([one.held_sharpe for one in results]))
    rival = float(np.median([one.rival_sharpe for one in results]))
    return [
        f"| {name} | {rate.times} of {rate.count} | {low:.1%} to {high:.1%} | {own:.2f} | "
        f"{held:.2f} | {rival:.2f} | {_months(results)} |"
    ]


def _months(results: Sequence["Result"]) -> str:
    if not results[0].history.edge:
        return ""
    bars = [np.inf if one.found_after_bars is None else one.found_after_bars for one in results]
    middle = float(np.quantile(bars, 0.5, method="inverted_cdf"))
    return f"{middle / MONTH_BARS:.0f} months" if np.isfinite(middle) else "more than half: never"


def _refusals(results: Sequence["Result"]) -> str:
    counts = Counter(test for one in results for test in one.failed)
    named = ", ".join(f"{test} {n / len(results):.0%}" for test, n in counts.most_common())
    return f"What refused the histories without edge (a history can fail several): {named}."


def write(page: Path, text: str, results: Sequence["Result"]) -> None:
    """Replace the results in ``page``, and draw the power curve beside it.

    Raises ``ConfigError`` where the page does not say where results belong.
    """
    try:
        before, rest = page.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError(
            f"{page}: cannot take the results ({error}); name a page with the lines {BEGIN} and "
            f"{END}"
        ) from error
    picture = page.with_name("evidence-power.svg")
    write_whole(picture, draw(curves(results)))
    shown = f"{BEGIN}\n{text}\n![Promotion rate by planted edge]({picture.name})\n{END}"
    write_whole(page, f"{before}{shown}{after}".encode())


def curves(results: Sequence["Result"]) -> dict[str, list[Point]]:
    """Return, by kind of planted edge, the promotion rate by edge, the weakest first.

    Edge 0 is no edge, and the same for all.
    """
    without = [one for one in results if not one.history.edge]
    kinds = sorted({one.history.kind for one in results if one.history.edge})
    return {
        kind: _points([*without, *(one for one in results if one.history.kind == kind)])
        for kind in kinds
    }


def _points(results: Sequence["Result"]) -> list[Point]:
    by_edge: dict[float, list[bool]] = {}
    for one in {one.history.name: one for one in results}.values():
        by_edge.setdefault(one.history.edge, []).append(one.promoted)
    made = []
    for edge, judged in sorted(by_edge.items()):
        rate = Rate(sum(judged), len(judged))
        made.append(Point(edge, rate.share, *rate.interval()))
    return made
