"""Attempts: every trial run, every look at a hold-out, every verdict, counted for ever.

Owns three kinds of entries of the promotion ledger. The gate's honesty rests on them: trials and
looks that were forgotten would make luck look like skill. Must not know aliases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from core.home import Home
from registry import history
from registry.models import Version
from registry.trials import Recorded, Trials, Tried, joined
from registry.verdict import GateReport

TRIALS, LOOK, VERDICT = "trials", "look", "verdict"


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

    ``run`` names the study; recording it again (a study that went on) adds nothing twice: the
    record with the most trials counts, of equal ones the newest.
    ``effective``: how many independent trials they amount to; None: as many as they are.
    """
    known = [None if s is None else float(s) for s in sharpes]
    body = {"run": run, "sharpes": known, "effective": effective}
    history.append(home.promotions, now, agent, TRIALS, body)


def recorded(home: Home, agent: str) -> dict[str, Recorded]:
    """Return what the ledger knows of every study of an agent, by name, in order."""
    found: dict[str, Recorded] = {}
    for entry in history.read(home.promotions, agent):
        if entry.kind != TRIALS:
            continue
        sharpes, name = tuple(entry.body["sharpes"]), entry.body["run"]
        if name in found and len(found[name].sharpes) > len(sharpes):
            continue  # fewer than were there before: no trial is ever taken back
        effective = entry.body.get("effective")
        found[name] = Recorded(sharpes, len(sharpes) if effective is None else effective)
    return found


def trials(home: Home, agent: str, known: Sequence[Tried] | None = None) -> Trials:
    """Return how many trials were ever run for an agent; see ``registry.trials.joined``."""
    return joined(recorded(home, agent), known)


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
