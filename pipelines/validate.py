"""Stage ``validate``: the gate between what was delivered and what may be learned from.

``python -m pipelines.validate AAPL``. Reads the snapshot; writes the validated bars, the rows taken
out with their reasons, and a report. Owns what follows from the checks: a dataset that fails one
stops everything downstream, the report says why, and the last good dataset stays in place.
"""

import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from core.errors import ValidationFailed
from core.home import Home
from core.settings import Interval, Params, Validation
from pipelines.checks import Check, content_checks, schema_check
from pipelines.inspection import inspect
from pipelines.snapshot import snapshot_path
from pipelines.stage import main
from pipelines.validation_report import page
from sources.files import parquet_bytes, read_parquet, write_whole
from sources.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gate made of a bar frame."""

    name: str
    bars: pd.DataFrame  # what may be used; actions of quarantined rows moved to the next one
    quarantined: pd.DataFrame  # BAR_COLUMNS and `reasons`
    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that stop the dataset."""
        return tuple(check for check in self.checks if not check.passed)

    def require(self, report: Path) -> "Judged":
        """Return this; raise ``ValidationFailed`` naming every failed check with its value.

        ``report``: where each check is told.
        """
        if self.failures:
            told = "; ".join(str(check) for check in self.failures)
            raise ValidationFailed(
                f"{self.name}: the data gate refuses these bars: {told}. The last good dataset "
                "stays; correct the source, or change `validation:` in params.yaml. The report: "
                f"{report}"
            )
        return self


def judge(
    bars: pd.DataFrame, name: str, interval: Interval, settings: Validation, now: datetime
) -> Judged:
    """Examine a frame, as bad as it may be; the verdict is in the result."""
    schema = schema_check(bars)
    if not schema.passed:
        return Judged(name, bars.iloc[:0], bars.iloc[:0].assign(reasons=""), (schema,))
    found = inspect(bars, interval, settings, now)
    return Judged(name, found.kept, found.quarantined, (schema, *content_checks(found, settings)))


def run(home: Home, params: Params, name: str) -> None:
    """Judge one snapshot; write report and quarantine, and the validated bars if they pass."""
    manifest = Manifest.load(home.workspace / "manifests" / f"{name}.json")
    bars = read_parquet(snapshot_path(home, name))[0]
    # A snapshot is judged as of its own newest bar: the same bytes tomorrow.
    now = bars.index[-1].to_pydatetime() + pd.Timedelta(days=1)
    judged = judge(bars, name, manifest.interval, params.validation, now)
    report = write_report(home, judged)
    write_whole(home.data / "quarantine" / f"{name}.parquet", parquet_bytes(judged.quarantined))
    judged.require(report)
    write_whole(home.data / "validated" / f"{name}.parquet", parquet_bytes(judged.bars))


def write_report(home: Home, judged: Judged) -> Path:
    """Write the report of one verdict; return its path."""
    path = home.data / "reports" / f"{judged.name}-validation.html"
    write_whole(path, page(judged.name, judged.bars, judged.quarantined, judged.checks).encode())
    return path


if __name__ == "__main__":
    sys.exit(main(run))
