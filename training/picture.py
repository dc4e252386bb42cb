"""The picture of a demo: what candidates and baselines made of bars nobody had trained on.

Owns one drawing, as SVG text that the same numbers always draw the same. Computes nothing.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.figures import CANDIDATE, GAIN, GRID, INK, LOSS, OTHERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = ("buy_and_hold", "ma_crossover", "champion")  # beside the candidate, where present
WARNING = "#ad5700"
TICKS = 4  # dates below a panel
LOOK: Any = {  # of every drawing
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ratchet",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One agent."""

    title: str
    verdict: str  # promote, refuse, insufficient evidence
    time: np.ndarray  # (T,) datetime64
    growth: Mapping[str, np.ndarray]  # contender -> (T,) growth of 1; `candidate` among them


def draw(panels: Sequence[Panel]) -> bytes:
    """Return one SVG with a panel per agent, side by side."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(4.1 * len(panels), 3.2), layout="constrained")
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(all_axes, panels, strict=True):
            _panel(axes, panel)
        all_axes[0].set_ylabel("growth of 1, after costs, out of sample")
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()


def _panel(axes: "Axes", panel: Panel) -> None:
    names = [name for name in SHOWN if name in panel.growth]
    for name, colour in zip(names, OTHERS, strict=False):
        axes.plot(
            panel.time, panel.growth[name], color=colour, lw=1.1, label=name.replace("_", " ")
        )
    axes.plot(panel.time, panel.growth["candidate"], color=CANDIDATE, lw=2.0, label="candidate")
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold")
    colour = {"promote": GAIN, "refuse": LOSS}.get(panel.verdict, WARNING)
    axes.set_title(panel.verdict, loc="right", fontsize=9, color=colour, fontweight="bold")
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.locator_params(axis="y", nbins=5)
    rows = np.linspace(0, len(panel.time) - 1, TICKS).astype(int)
    axes.set_xticks(panel.time[rows], [str(time)[:7] for time in panel.time[rows]])
