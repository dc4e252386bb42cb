"""Checks: what Great Expectations is asked of a bar frame, and what it found.

Owns the expectations and the words for their results. Knows nothing of files or of what follows
from a failure; what is measured is ``inspection``'s.
"""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from core.bars import BAR_COLUMNS
from core.settings import Validation
from pipelines.inspection import PRICES, Inspected
from pipelines.postponing import postponing


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the gate requires, what was found, and whether it will do."""

    name: str
    found: str
    limit: str
    passed: bool
    where: str = ""  # where the worst was seen

    def __str__(self) -> str:
        seen = f" ({self.where})" if self.where else ""
        return f"{self.name}: {self.found}, expected {self.limit}{seen}"


def schema_check(bars: pd.DataFrame) -> Check:
    """Tell whether ``bars`` is a bar frame at all: columns, types, clock, at least one row."""
    missing = [name for name in BAR_COLUMNS if name not in bars.columns]
    wrong = [
        name for name in BAR_COLUMNS if name in bars.columns and str(bars[name].dtype) != "float64"
    ]
    index = bars.index
    faults = [f"no column {name}" for name in missing]
    faults += [f"{name} is {bars[name].dtype}, not float64" for name in wrong]
    if not isinstance(index, pd.DatetimeIndex) or str(index.tz) != "UTC":
        faults.append("its index is no UTC time")
    if bars.empty:
        faults.append("no rows")
    return Check("schema", "; ".join(faults) or "a bar frame", "a bar frame", not faults)


def content_checks(found: Inspected, settings: Validation) -> tuple[Check, ...]:
    """Let Great Expectations judge the rows that are left and the measures of the whole."""
    limits: dict[str, float] = {
        "future_bars": 0,
        "quarantined": settings.max_quarantined,
        "missing_sessions": settings.max_missing_sessions,
        "unexplained_jump": settings.max_jump,
        "stale_run": settings.max_stale_bars,
        "stale_opens": settings.max_stale_opens,
        "seams": 0,
    }
    measures = pd.DataFrame({name: [float(getattr(found.measures, name))] for name in limits})
    on_rows, on_measures = _validate(
        (found.kept.reset_index(), _row_expectations()),
        (measures, _measure_expectations(limits)),
    )
    broken = sorted(
        f"{result.expectation_config.type} ({_columns(result)})"
        for result in on_rows
        if not result.success
    )
    passed = {r.expectation_config.kwargs["column"]: bool(r.success) for r in on_measures}
    return (
        Check("rows", "; ".join(broken) or "consistent", "consistent", not broken),
        *(
            Check(
                name,
                f"{measures[name][0]:.4g}",
                f"at most {limit:g}",
                passed[name],
                found.measures.where.get(name, ""),
            )
            for name, limit in limits.items()
        ),
    )


def _measure_expectations(limits: Mapping[str, float]) -> list[Any]:
    gxe = _library().expectations
    return [gxe.ExpectColumnMaxToBeBetween(column=n, max_value=top) for n, top in limits.items()]


def _row_expectations() -> list[Any]:
    gxe = _library().expectations

    pairs = (("high", "open"), ("high", "close"), ("open", "low"), ("close", "low"))
    return [
        gxe.ExpectTableColumnsToMatchSet(column_set=["time", *BAR_COLUMNS], exact_match=False),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToBeIncreasing(column="time", strictly=True),
        *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in BAR_COLUMNS),
        *(
            gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0.0, strict_min=True)
            for name in (*PRICES, "split_ratio")
        ),
        *(
            gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0.0)
            for name in ("volume", "dividend")
        ),
        *(
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A=a, column_B=b, or_equal=True)
            for a, b in pairs
        ),
    ]


def _validate(*asked: tuple[pd.DataFrame, list[Any]]) -> list[list[Any]]:
    """Validate tables, each against its own suite; the context lives in memory."""
    from great_expectations.data_context.types.base import ProgressBarsConfig

    gx = _library()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("ratchet")
    found = []
    for number, (table, expectations) in enumerate(asked):
        asset = source.add_dataframe_asset(f"table {number}")
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})
        suite = gx.ExpectationSuite(f"gate {number}", expectations=expectations)
        found.append(list(batch.validate(suite).results))
    return found


def _library() -> Any:
    """Import Great Expectations, which takes seconds: only who judges bars pays."""
    with warnings.catch_warnings(), postponing("altair", "scipy.stats"):
        warnings.simplefilter("ignore")  # of its own dependencies
        import great_expectations
        import great_expectations.expectations
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    return great_expectations


def _columns(result: Any) -> str:
    kwargs = result.expectation_config.kwargs
    return ", ".join(str(kwargs[k]) for k in ("column", "column_A", "column_B") if k in kwargs)
