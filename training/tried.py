"""Tried: all that was ever tried for an agent, as the study database has it.

Owns what counts as a trial of an agent. Knows neither the ledger nor how trials are weighed.

Every trial that a study was told counts, whatever became of its retraining: judged or not, killed,
never taken up again. A pruned trial was scored before it was given up, so it counts; it has no
returns of a finished policy, so it counts for itself. A failed one counts too: it was tried. What
a killed study had begun and never told counts nothing: nobody saw a result, and taken up again it
is the same trial. Studies of ``ratchet reproduce`` bear another name: they look for nothing.
"""

import math
from typing import Any

import numpy as np

from core.home import Home
from registry.pooling import Series
from registry.trials import Tried
from training.studies import answering, library, storage
from training.study import BARS, trials_of

USUAL_BARS_PER_YEAR = 252.0  # of studies from before they kept it: all were daily


def studies_of(home: Home, agent: str) -> list[Tried]:
    """Return every study of ``agent``, oldest first; those without a trial are left out."""
    with answering(home):
        kept = storage(home)
        studies = [
            library().load_study(study_name=name, storage=kept)
            for name in library().get_all_study_names(storage=kept)
            if name.startswith(f"{agent}/")
        ]
        return [tried for tried in map(_tried, studies) if tried.sharpes]


def _tried(study: Any) -> Tried:
    trials, bars = trials_of(study), study.user_attrs.get(BARS, {})
    year = math.sqrt(bars.get("per_year", USUAL_BARS_PER_YEAR))
    known = [trial.returns for trial in trials if trial.returns]
    returns = np.array(known, np.float64) if known else np.empty((0, 0))
    times, count = bars.get("times", ()), returns.shape[1]
    return Tried(
        study.study_name,
        tuple(None if trial.score is None else trial.score / year for trial in trials),
        # The validation is cut into equal stretches; the few bars left over have no return.
        Series(returns, np.array(times[:count], np.int64) if len(times) >= count > 0 else None),
    )
