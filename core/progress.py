"""Progress of long work, told to whoever listens: a terminal, a Prefect run, or nobody.

Owns the words. Knows neither how progress is shown nor what is being done.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one stage of a long piece of work has come."""

    stage: str  # "search", "seeds", "walk-forward", "gate" …: short, stable, one per bar shown
    done: float  # fraction of the stage, 0 to 1
    text: str  # one line for a person: "trial 3 of 6: validation Sharpe 0.41"


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Listen to nothing: the default of every function that takes a ``report``."""
