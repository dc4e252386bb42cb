"""The proof a feature set owes before it is written: its rows know nothing of later bars.

Owns which bars the leak prover (``pipelines/leaks.py``) is shown here, and at which it cuts. Rows
of one period (year, day) are computed from the bars between their anchor and the period's end
(``features/anchor.py``), so those bars are all that a column of the user's own is ever handed: what
it does with them is proved without the rest of the history. What becomes of the columns later,
scaled, observed and traded, is proved before a retraining (``pipelines/chain.py``).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from core.errors import ConfigError
from features.anchor import Period, periods
from features.spec import FeatureSpec
from features.table import build_table, risk_columns
from pipelines.leaks import Trace, World, differing, require_none

CUTS = 6  # at an uneven distance: a column filled from the end of its week or month is even
LEAST_ROWS = 30  # of the period that is looked at; a year that has just begun shows too little


def require_honest_features(
    name: str, bars: pd.DataFrame, spec: FeatureSpec, vix: pd.Series | None = None
) -> None:
    """Raise ``FutureLeak`` naming the columns of ``spec`` that know what comes after their bar.

    ``bars``: validated, of the dataset ``name``. Raises ``ConfigError`` where a column gives other
    numbers each time it is computed. Fewer than two bars have no future, and prove nothing.
    """
    if len(bars) < 2:
        return
    index = pd.DatetimeIndex(bars.index)
    period = _looked_at(index, spec)
    world = World({name: bars.iloc[period.anchor : period.stop]}, vix if spec.uses_vix else None)
    known = _trace(world, name, spec)
    cuts = cuts_in(index[period.first : period.stop])
    if changing := differing(known, _trace(world, name, spec), cuts[-1]):
        raise ConfigError(
            f"features of {name}: {', '.join(changing)} of the same bars differ each time; let "
            "nothing but the bars decide them, neither clock nor chance"
        )

    def chain(asked: World, cut: pd.Timestamp) -> Trace:
        return known if asked is world else _trace(asked, name, spec)

    require_none(chain, world, cuts, f"features of {name}")


def cuts_in(index: pd.DatetimeIndex) -> Sequence[pd.Timestamp]:
    """Return up to ``CUTS`` bars with at least one behind them, ever closer to the end."""
    last = len(index) - 2
    rows = np.unique(last - (np.geomspace(1, last + 1, CUTS).astype(int) - 1)) if last > 0 else [0]
    return [index[row] for row in rows]


def _looked_at(index: pd.DatetimeIndex, spec: FeatureSpec) -> Period:
    """Return the newest period with enough rows, else the one that has most."""
    found = periods(index, spec.interval, spec.anchor)
    long = [one for one in found if one.stop - one.first >= LEAST_ROWS]
    return long[-1] if long else max(found, key=lambda one: one.stop - one.first)


def _trace(world: World, name: str, spec: FeatureSpec) -> Trace:
    bars = world.bars[name]
    return {
        "features": build_table(bars, spec, spec.interval, world.vix),
        "risk": risk_columns(bars, spec, spec.interval),
    }
