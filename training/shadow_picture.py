"""The picture of shadows: both books of each comparison, and the wealth of its test.

Owns one drawing, as SVG text that the same numbers always draw the same. Computes nothing.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.figures import CANDIDATE, GAIN, LOSS, OTHERS
from training.picture import LOOK


@dataclass(frozen=True, slots=True)
class Shown:
    """One comparison."""

    title: str
    time: np.ndarray  # (T,) datetime64
    equity: np.ndarray  # (T,) of the challenger, account currency
    production_equity: np.ndarray  # (T,)
    evidence: np.ndarray  # (T,) wealth staked on the challenger
    against: np.ndarray  # (T,)
    needed: float  # wealth at which it is promoted
    needed_against: float  # at which it is dropped


def draw(shown: Sequence[Shown]) -> bytes:
    """Return one SVG with a column per comparison: books above, wealth below."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(4.6 * len(shown), 5.0), layout="constrained")
        axes = figure.subplots(2, len(shown), squeeze=False, sharex="col")
        for column, one in enumerate(shown):
            books, wealth = axes[0][column], axes[1][column]
            books.set_title(one.title, loc="left", fontsize=9)
            books.plot(one.time, one.production_equity, color=OTHERS[0], label="Production")
            books.plot(one.time, one.equity, color=CANDIDATE, label="challenger")
            books.legend(frameon=False, fontsize=8)
            wealth.plot(one.time, one.evidence, color=GAIN, label="for the challenger")
            wealth.plot(one.time, one.against, color=LOSS, label="for Production")
            for level, colour in ((one.needed, GAIN), (one.needed_against, LOSS)):
                wealth.axhline(level, color=colour, linestyle="--", linewidth=0.8)
            wealth.set_yscale("log")
            wealth.legend(frameon=False, fontsize=8)
            wealth.tick_params(axis="x", labelrotation=30)
        axes[0][0].set_ylabel("simulated book, account currency")
        axes[1][0].set_ylabel("wealth of the test; dashed: it ends")
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()
