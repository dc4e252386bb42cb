"""The picture of several retrainings: reads the equity curves they stored, writes one SVG.

Owns where curves and picture lie. Drawing is ``training/picture.py``'s.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from core.home import Home
from core.settings import Params
from pipelines.judging import Retrained
from pipelines.record import EQUITY
from sources.files import write_whole
from training.picture import Panel, draw


def run(home: Home, params: Params, retrained: Sequence[Retrained]) -> Path:
    """Draw candidates against their baselines over the hold-outs; return the SVG's path."""
    panels = []
    for done in retrained:
        curves = pd.read_csv(done.reports[EQUITY], index_col="time", parse_dates=True)
        entry = params.agent(done.agent)
        panels.append(
            Panel(
                title=f"{done.agent}: {entry.algorithm.upper()} on {entry.symbol}",
                verdict=done.verdict,
                time=np.asarray(curves.index),
                growth={str(name): curves[name].to_numpy() for name in curves.columns},
            )
        )
    path = home.reports / "overview.svg"
    write_whole(path, draw(panels))
    return path
