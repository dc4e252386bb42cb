"""A study whose trainings are a formula: quick, and with an answer known by hand.

Run as a program it is a process that a test can kill: ``python study_kit.py HOME SLOW``.
"""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from core.errors import ConfigError, TrainingError
from core.home import Home
from core.settings import Params, Search, parse_params
from training.space import space_for
from training.study import Plan, Searched, Trial, search
from training.tried import studies_of

SETTINGS = Search(generation=3, reports=4, prune_below_quantile=0.5)


def params() -> Params:
    return parse_params({"agents": {"demo": {"symbol": "AAPL", "reward": "volatility_penalty"}}})


def plan(trials: int = 8, identity: str = "a" * 64, seed: int = 1) -> Plan:
    return Plan("demo", identity, trials, space_for(params(), "demo"), SETTINGS, seed)


def trials_told(home: Home, agent: str) -> int:
    """Return how many trials the study database has of all studies of an agent."""
    return sum(len(study.sharpes) for study in studies_of(home, agent))


def height(values: Mapping[str, Any]) -> float:
    """Highest (1.0) where the discount is 0.95; a network of 32-32 costs half."""
    return 1.0 - 20.0 * abs(values["discount"] - 0.95) - 0.5 * (values["hidden"] == "32-32")


def climb(lesson: Any, report: Callable[[int, dict[str, float]], None]) -> Any:
    """Reach ``height`` in four even steps; the lesson is the trial's values themselves."""
    values = dict(lesson)
    if values.pop("broken", False):
        raise TrainingError("the loss at s3://me:pw1@store is not a number")
    if values.pop("unusable", False):
        raise ConfigError("no reward called 'wealth'")
    top = height(values)
    curve = []
    for point in range(1, 5):
        time.sleep(values.get("slow", 0.0))
        curve.append({"validation_score": top * point / 4, "steps": float(point)})
        report(point, curve[-1])
    returns = tuple(0.01 * top * (-1) ** (bar + bar // 7) for bar in range(40))
    return SimpleNamespace(curve=tuple(curve), validation_score=top, validation_returns=returns)


def run(home: Home, listen: Callable[[Trial], None], slow: float = 0.0) -> Searched:
    def teach(values: Mapping[str, Any]) -> Any:
        return dict(values) | {"slow": slow}

    return search(home, plan(), teach, listen=listen, train=climb)


def main() -> None:
    def listen(trial: Trial) -> None:
        sys.stdout.write(f"told {trial.number}\n")
        sys.stdout.flush()

    run(Home(Path(sys.argv[1])), listen, slow=float(sys.argv[2]))


if __name__ == "__main__":
    main()
