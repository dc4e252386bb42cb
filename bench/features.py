"""How long the feature table takes beside the calls of TA-Lib that it is made of.

    python -m bench.features [--repeats 15]

Every indicator of ``params.yaml`` over twenty years of days of ten symbols (the bundled markets,
in turn; the younger ones have fewer). The calls are recorded once, with their arguments, and made
again by themselves: through the functions that ``talib`` exports, and through those underneath,
without their search for pandas. Table and calls take turns; the figures are processor time.
"""

import argparse
import inspect
import json
import os
import platform
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import talib

from core.home import PROJECT
from core.settings import load_params
from features import indicators
from features.spec import FeatureSpec, spec_from
from features.table import build_table
from sources.bundled import LISTINGS

SYMBOLS, DAYS = 10, 20 * 252

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


def markets() -> list[pd.DataFrame]:
    """Return the bars of ten symbols."""
    names = [name for name in LISTINGS if name != "VIX"]
    return [LISTINGS[names[n % len(names)]].load().iloc[-DAYS:] for n in range(SYMBOLS)]


def recorded(build: Callable[[], object]) -> list[Call]:
    """Return every call of TA-Lib that ``build`` makes."""
    calls: list[Call] = []
    plain = indicators.ta

    def recording(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            copies = tuple(a.copy() if isinstance(a, np.ndarray) else a for a in arguments)
            calls.append((name, copies, named))
            return function(*arguments, **named)

        return call

    names = talib.get_functions()
    listening = {name: recording(name, getattr(plain, name)) for name in names}
    indicators.ta = SimpleNamespace(**listening)  # type: ignore[assignment]
    try:
        build()
    finally:
        indicators.ta = plain
    return calls


def measure(repeats: int, frames: list[pd.DataFrame], spec: FeatureSpec) -> dict[str, Any]:
    """Return the medians of ``repeats`` rounds, milliseconds, and their ratios."""

    def build() -> None:
        for bars in frames:
            build_table(bars, spec, spec.interval)

    calls = recorded(build)
    exported = [(getattr(talib, name), given, named) for name, given, named in calls]
    beneath = [(inspect.unwrap(function), given, named) for function, given, named in exported]

    def again(those: list[Any]) -> None:
        for function, given, named in those:
            function(*given, **named)

    rounds = []
    for _ in range(repeats):
        taken = []
        for work in (build, lambda: again(exported), lambda: again(beneath)):
            begun = time.process_time()
            work()
            taken.append((time.process_time() - begun) * 1e3)
        rounds.append(taken)
    table, outer, inner = np.median(rounds, axis=0).tolist()
    return {
        "symbols": len(frames),
        "columns": len(spec.columns),
        "days": [len(bars) for bars in frames],
        "calls": len(calls),
        "table_ms": table,
        "talib_ms": outer,
        "talib_without_its_wrappers_ms": inner,
        "ratio": table / outer,
        "ratio_without_its_wrappers": table / inner,
        "samples_ms": rounds,
    }


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    spec = spec_from(load_params(PROJECT / "params.yaml"), "1d")
    figures = measure(arguments.repeats, markets(), spec)
    figures["machine"] = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    figures["load"] = os.getloadavg()[0]
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
