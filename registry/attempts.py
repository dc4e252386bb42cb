"""Attempts: every trial run, every look at a hold-out, every verdict, counted for ever.

Owns three kinds of entries of the promotion ledger. The gate's honesty rests on them: trials and
looks that were forgotten would make luck look like skill. Must not know aliases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from core.home import Home
from registry import history
from registry.models import Version
from registry.verdict import GateReport

TRIALS, LOOK, VERDICT = "trials", "look", "verdict"


@dataclass(frozen=True, slots=True)
class Trials:
    """What was ever tried for an agent: what the gate counts against it."""

    count: int
    effective: float  # independent ones; the studies' own numbers, added up
    sharpe_variance: float | None  # of the per-bar Sharpe ratios; None: fewer than two known


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict as the ledger keeps it."""

    number: int  # of the judged version
    bundle_sha256: str
    champion: int | None  # the version it was compared with
    report: GateReport
    at: datetime  # UTC


def record_trials(
    home: Home,
    agent: str,
    run: str,
    sharpes: Sequence[float | None],
    now: datetime,
    effective: float | None = None,
) -> None:
    """Add the trials of one study: per-bar Sharpe ratios, None for a trial that gave none.

    ``run`` names the study; recording it again (a resumed study) replaces its earlier record.
    ``effective``: how many independent trials they amount to; None: as many as they are.
    """
    known = [None if s is None else float(s) for s in sharpes]
    body = {"run": run, "sharpes": known, "effective": effective}
    history.append(home.promotions, now, agent, TRIALS, body)


def trials(home: Home, agent: str) -> Trials:
    """Return how many trials were ever run for an agent, and how their Sharpe ratios spread."""
    newest: dict[str, Mapping[str, Any]] = {}
    for entry in history.read(home.promotions, agent):
        if entry.kind == TRIALS:
            newest[entry.body["run"]] = entry.body
    sharpes = [sharpe for study in newest.values() for sharpe in study["sharpes"]]
    known = [sharpe for sharpe in sharpes if sharpe is not None]
    spread = float(np.var(known, ddof=1)) if len(known) > 1 else None
    own = [study.get("effective") for study in newest.values()]
    effective = [
        len(study["sharpes"]) if number is None else number
        for study, number in zip(newest.values(), own, strict=True)
    ]
    return Trials(len(sharpes), float(sum(effective)), spread)


def record_look(
    home: Home, agent: str, first: datetime, last: datetime, run: str, now: datetime
) -> None:
    """Record, *before* looking, that ``run`` evaluates a candidate on bars first … last."""
    body = {"run": run, "first": _utc(first), "last": _utc(last)}
    history.append(home.promotions, now, agent, LOOK, body)


def earlier_looks(home: Home, agent: str, first: datetime, last: datetime, run: str) -> int:
    """Count the other runs that looked at any bar from ``first`` to ``last``, both included."""
    overlapping = {
        entry.body["run"]
        for entry in history.read(home.promotions, agent)
        if entry.kind == LOOK
        and datetime.fromisoformat(entry.body["first"]) <= last
        and datetime.fromisoformat(entry.body["last"]) >= first
    }
    return len(overlapping - {run})


def record_verdict(
    home: Home, version: Version, report: GateReport, champion: int | None, now: datetime
) -> None:
    """Record the gate's verdict on a version, and which version it was compared with."""
    body = {
        "number": version.number,
        "bundle_sha256": version.bundle_sha256,
        "champion": champion,
        "report": report.to_json(),
    }
    history.append(home.promotions, now, version.agent, VERDICT, body)


def newest_verdict(home: Home, version: Version) -> Judgement | None:
    """Return the newest verdict on this very bundle, None if it was never judged."""
    found = [
        entry
        for entry in _verdicts(home, version.agent)
        if entry.body["number"] == version.number
        and entry.body["bundle_sha256"] == version.bundle_sha256
    ]
    return _judgement(found[-1]) if found else None


def verdict_by_report(home: Home, agent: str, report_sha256: str) -> Judgement | None:
    """Return the verdict whose report has this hash, None if there is none."""
    for entry in _verdicts(home, agent):
        judgement = _judgement(entry)
        if judgement.report.sha256 == report_sha256:
            return judgement
    return None


def _verdicts(home: Home, agent: str) -> list[history.Entry]:
    return [entry for entry in history.read(home.promotions, agent) if entry.kind == VERDICT]


def _judgement(entry: history.Entry) -> Judgement:
    body = entry.body
    report = GateReport.from_json(body["report"])
    return Judgement(body["number"], body["bundle_sha256"], body["champion"], report, entry.at)


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()
