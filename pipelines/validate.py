"""Stage ``validate``: the gate between what was delivered and what may be learned from.

``python -m pipelines.validate AAPL``. Reads the snapshot; writes the validated bars, the rows taken
out with their reasons, and a report. Owns what follows from the checks: odd rows go to quarantine,
too many of them, or a check of the whole that fails, stop everything downstream, and the last good
dataset stays in place.
"""

import html
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from core.errors import BadBars, ValidationFailed
from core.home import Home
from core.settings import Interval, Params, Validation
from pipelines.checks import Check, examine
from pipelines.snapshot import snapshot_path
from pipelines.stage import main
from sources.actions import carry_actions
from sources.files import parquet_bytes, read_parquet, write_whole
from sources.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gate made of a bar frame."""

    name: str
    bars: pd.DataFrame  # what may be used; actions of quarantined rows moved to the next one
    quarantined: pd.DataFrame  # BAR_COLUMNS and `reason`
    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that stop the dataset: those of the whole that failed."""
        return tuple(check for check in self.checks if not check.passed and not check.rows)

    def require(self) -> "Judged":
        """Return this; raise ``ValidationFailed`` naming every failed check with its value."""
        if self.failures:
            told = "; ".join(f"{c.name}: {c.found}, limit {c.limit}" for c in self.failures)
            raise ValidationFailed(f"{self.name}: refused: {told}. The last good dataset stays")
        return self


def judge(
    bars: pd.DataFrame, name: str, interval: Interval, settings: Validation, now: datetime
) -> Judged:
    """Examine a bar frame; raise ``BadBars`` where it is none (order, columns, no rows)."""
    if bars.empty:
        raise BadBars(f"{name}: no bars at all")
    if not bars.index.is_monotonic_increasing:
        wrong = bars.index[1:][np.diff(pd.DatetimeIndex(bars.index).asi8) < 0][0]
        raise BadBars(f"{name}: bars are not in order of time: {wrong} comes too late; sort them")
    checks = examine(bars, interval, settings, now)
    reasons = _reasons(checks, len(bars))
    odd = np.array([bool(reason) for reason in reasons])
    share = odd.mean()
    quarantine = Check(
        "few bars are quarantined",
        bool(share <= settings.max_quarantined),
        f"{int(odd.sum())} of {len(bars)} bars ({share:.1%})"
        + (f"; first {bars.index[odd][0]}: {reasons[int(odd.argmax())]}" if odd.any() else ""),
        f"≤ {settings.max_quarantined:.1%}",
    )
    return Judged(
        name,
        carry_actions(_believable(bars), ~odd),
        bars[odd].assign(reason=[reason for reason in reasons if reason]),
        (*checks, quarantine),
    )


def gate(
    bars: pd.DataFrame, name: str, interval: Interval, settings: Validation, now: datetime
) -> Judged:
    """Examine a bar frame and raise ``ValidationFailed`` unless it may be used."""
    return judge(bars, name, interval, settings, now).require()


def run(home: Home, params: Params, name: str) -> None:
    """Judge one snapshot; write report and quarantine, and the validated bars if they pass."""
    manifest = Manifest.load(home.workspace / "manifests" / f"{name}.json")
    bars = read_parquet(snapshot_path(home, name))[0]
    # A snapshot is judged as of its own newest bar: the same bytes tomorrow.
    now = bars.index[-1].to_pydatetime() + pd.Timedelta(days=1)
    judged = judge(bars, name, manifest.interval, params.validation, now)
    write_whole(_report_path(home, name), _report(judged).encode())
    judged.require()
    write_whole(home.data / "quarantine" / f"{name}.parquet", parquet_bytes(judged.quarantined))
    write_whole(home.data / "validated" / f"{name}.parquet", parquet_bytes(judged.bars))


def _report_path(home: Home, name: str) -> Path:
    return home.data / "reports" / f"{name}-validation.html"


def _reasons(checks: list[Check], rows: int) -> list[str]:
    reasons: list[list[str]] = [[] for _ in range(rows)]
    for check in checks:
        for row in check.rows:
            reasons[row].append(f"not so: {check.name} ({check.limit})")
    return ["; ".join(found) for found in reasons]


def _believable(bars: pd.DataFrame) -> pd.DataFrame:
    """Return the bars without actions that cannot be: what a quarantined row leaves behind."""
    ratio, dividend = bars["split_ratio"], bars["dividend"]
    return bars.assign(
        split_ratio=ratio.where(ratio > 0.0, 1.0), dividend=dividend.where(dividend >= 0.0, 0.0)
    )


def _report(judged: Judged) -> str:
    rows = "".join(
        f"<tr class={'ok' if c.passed else 'odd' if c.rows else 'bad'}>"
        f"<td>{'passed' if c.passed else 'quarantined' if c.rows else 'FAILED'}</td>"
        f"<td>{html.escape(c.name)}</td><td>{html.escape(c.found)}</td>"
        f"<td>{html.escape(c.limit)}</td></tr>"
        for c in judged.checks
    )
    verdict = "refused" if judged.failures else "accepted"
    first, last = judged.bars.index[0], judged.bars.index[-1]
    span = f"{len(judged.bars)} bars, {first:%Y-%m-%d} to {last:%Y-%m-%d}"
    taken = judged.quarantined.to_html() if len(judged.quarantined) else "<p>none</p>"
    return (
        "<!doctype html><meta charset=utf-8>"
        f"<title>{judged.name}: validation</title><style>"
        "body{font:15px system-ui;margin:2rem auto;max-width:70rem;color:#1c2733}"
        "table{border-collapse:collapse;width:100%}td,th{padding:.35rem .6rem;text-align:left;"
        "border-bottom:1px solid #dde3ea}.ok td:first-child{color:#18794e}"
        ".odd td:first-child{color:#ad5700}.bad td:first-child{color:#c62a2f;font-weight:700}"
        "</style>"
        f"<h1>{judged.name}: {verdict}</h1><p>{span}</p>"
        "<table><tr><th>result<th>check<th>found<th>limit</tr>"
        f"{rows}</table><h2>Quarantined bars</h2>{taken}"
    )


if __name__ == "__main__":
    sys.exit(main(run))
