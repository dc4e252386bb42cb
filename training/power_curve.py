"""The power curve: how often the gate promotes, by the edge there truly is.

Owns one drawing, as SVG text that the same numbers always draw the same. Computes nothing.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.figures import CANDIDATE, GRID, INK, LOSS, OTHERS
from training.picture import LOOK

FALSE_PROMOTIONS = 0.05  # what the interval at edge 0 should stay below
WANTED_POWER = 0.80  # at a planted net Sharpe ratio of 2
SHIFT = 0.03  # of each further curve to the right, so that intervals do not cover each other


@dataclass(frozen=True, slots=True)
class Point:
    """A promotion rate and its interval, fractions."""

    edge: float  # net Sharpe ratio
    share: float
    low: float
    high: float


def draw(curves: Mapping[str, Sequence[Point]]) -> bytes:
    """Return one SVG with a curve for every kind of edge."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        for number, (name, points) in enumerate(curves.items()):
            axes.errorbar(
                [p.edge + SHIFT * number for p in points],
                [p.share for p in points],
                yerr=[
                    [max(0.0, p.share - p.low) for p in points],
                    [max(0.0, p.high - p.share) for p in points],
                ],
                label=name,
                color=(CANDIDATE, *OTHERS)[number],
                lw=2.0,
                marker="o",
                capsize=4,
            )
        axes.legend(frameon=False, loc="lower right")
        for level, colour in ((FALSE_PROMOTIONS, LOSS), (WANTED_POWER, INK)):
            axes.axhline(level, color=colour, lw=0.8, ls="--")
        axes.grid(color=GRID, lw=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("planted edge: net Sharpe ratio of the rule (0: no edge)")
        axes.set_ylabel("promoted, with 95 % interval")
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()
