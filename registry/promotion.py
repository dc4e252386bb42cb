"""Promotion: which version is Production, who or what put it there, and the way back.

Owns the meaning of alias changes. The ledger (``registry/history.py``) is the truth: the promoted
versions form a stack, promoting puts one on top, rolling back takes the top away. MLflow's aliases
mirror it: Production is the top, Previous the one below.

A change survives a crash at any point. It is written down as an intent, then the alias is set, then
the change is confirmed. What was interrupted is settled by the next call: confirmed if Production
had already moved, abandoned if not. One change at a time per home, by a lock that dies with its
process.
"""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from core.errors import PromotionRefused, RegistryError, UnknownVersion
from core.home import Home
from registry import history, models
from registry.attempts import Judgement, newest_verdict, verdict_by_report
from registry.baselines import BASELINES
from registry.models import Version

Action = Literal["install", "promote", "rollback"]
CHANGE, CONFIRMED, ABANDONED = "change", "confirmed", "abandoned"
CHALLENGE = "challenge"  # the alias Challenger was given to a version
DISMISSED = "dismissed"  # it was taken away again
GATE = "gate"  # who promotes when nobody overrides
SHADOW = "shadow test"  # who promotes what was better beside Production


@dataclass(frozen=True, slots=True)
class Change:
    """One change of Production, with its evidence."""

    id: int  # of the ledger's entry
    at: datetime  # UTC
    agent: str
    action: Action
    number: int  # of the version that became Production
    replaced: int | None  # the version before; None: the first
    bundle_sha256: str
    by: str  # "gate", or a person
    reason: str
    gate_verdict: str | None  # None: never judged
    gate_report_sha256: str | None
    dataset_sha256: str
    commit: str

    def __str__(self) -> str:
        before = "" if self.replaced is None else f" in place of version {self.replaced}"
        return (
            f"{self.agent}: version {self.number} is Production{before} "
            f"({self.action} by {self.by}: {self.reason}) since {self.at:%Y-%m-%d %H:%M:%S} UTC"
        )


@dataclass(frozen=True, slots=True)
class Tenure:
    """The time a version was Production, and what put it there."""

    change: Change
    until: datetime | None  # UTC; None: still is
    judgement: Judgement | None  # the whole gate report, where there was one

    def __str__(self) -> str:
        end = "now" if self.until is None else f"{self.until:%Y-%m-%d %H:%M:%S} UTC"
        verdict = self.judgement.report.summary if self.judgement else "never judged by the gate"
        return f"{self.change}, until {end}; {verdict}"

    @property
    def evidence(self) -> str:
        """Return by what the ledger knows bundle, gate report, dataset and code, a line each."""
        change = self.change
        told = {
            "bundle": change.bundle_sha256,
            "gate report": change.gate_report_sha256,
            "dataset": change.dataset_sha256,
            "commit": change.commit,
        }
        return "\n".join(f"  {name:<12}{value or 'none'}" for name, value in told.items())


def install(home: Home, agent: str, number: int, now: datetime) -> Change:
    """Make a baseline the first Production version; raise ``PromotionRefused`` otherwise."""
    with _turn(home, agent) as stack:
        if stack:
            raise PromotionRefused(
                f"{agent}: version {stack[-1].number} is Production already; a baseline is "
                "installed only where there is none"
            )
        version = models.version(home, agent, number)
        algorithm = version.tags.get("algorithm")
        if algorithm not in BASELINES:
            raise PromotionRefused(
                f"{agent}: version {number} is {algorithm}, not a baseline; register one first, "
                "then promote through the gate"
            )
        reason = f"{algorithm} is the first champion"
        return _change(home, "install", version, stack, "baseline", reason, now)


def promote(
    home: Home,
    agent: str,
    number: int,
    now: datetime,
    by: str | None = None,
    reason: str | None = None,
) -> Change:
    """Make a version Production: through the gate, or by a named person who gives a reason.

    Without ``by`` the newest recorded verdict on this very bundle must be "promote", and the
    version it was compared with must still be Production. Raises ``PromotionRefused``,
    ``UnknownVersion`` or ``ServiceUnavailable``; then nothing has changed.
    """
    named, why = (by or "").strip(), (reason or "").strip()
    with _turn(home, agent) as stack:
        version = models.version(home, agent, number)
        if stack and stack[-1].number == number:
            raise PromotionRefused(f"{agent}: version {number} is Production already")
        if not named and not why:
            named, why = GATE, _gate_allows(home, version, stack)
        elif not named or not why or named in (GATE, SHADOW):
            raise PromotionRefused(
                f"{agent}: overriding the gate needs a named person and a reason, "
                f"found by={by!r}, reason={reason!r}"
            )
        return _change(home, "promote", version, stack, named, why, now)


def rollback(home: Home, agent: str, by: str, reason: str, now: datetime) -> Change:
    """Make the version before Production again; once more goes one further back.

    Raises ``UnknownVersion`` where there is nothing to go back to.
    """
    if not by.strip() or not reason.strip():
        raise PromotionRefused(
            f"{agent}: a rollback needs who and why, found by={by!r}, reason={reason!r}"
        )
    with _turn(home, agent) as stack:
        if len(stack) < 2:
            present = (
                f"version {stack[-1].number} is the first"
                if stack
                else f"there is none; `ratchet retrain {agent}` makes one"
            )
            raise UnknownVersion(f"{agent}: no earlier Production to go back to: {present}")
        version = models.version(home, agent, stack[-2].number)
        return _change(home, "rollback", version, stack, by.strip(), reason.strip(), now)


def challenge(home: Home, agent: str, number: int, now: datetime, by: str = "retraining") -> None:
    """Make a version the Challenger: the newest candidate, not yet Production."""
    with _turn(home, agent):
        version = models.version(home, agent, number)
        body = {
            "number": number,
            "replaced": models.alias(home, agent, "Challenger"),
            "by": by,
        }
        history.append(home.promotions, now, agent, CHALLENGE, body | _evidence(home, version))
        models.set_alias(home, agent, "Challenger", number)


def promote_shadow(
    home: Home, agent: str, number: int, over: int, now: datetime, figures: str
) -> Change:
    """Make a version Production that a sequential test found better than ``over``.

    Raises ``PromotionRefused`` where ``over`` is not Production any more, or where this was done
    before and taken back: then a person decides.
    """
    with _turn(home, agent) as stack:
        present = stack[-1].number if stack else None
        if present != over:
            raise PromotionRefused(
                f"{agent}: version {number} was compared with version {over}, but Production is "
                f"now version {present}; it is compared with that one anew"
            )
        for change in production_history(home, agent):
            if (change.by, change.number, change.replaced) == (SHADOW, number, over):
                raise PromotionRefused(
                    f"{agent}: version {number} took the place of version {over} before, at "
                    f"{change.at.isoformat(timespec='seconds')}, and that was taken back; promote "
                    "it with a name and a reason (--by, --reason)"
                )
        version = models.version(home, agent, number)
        return _change(home, "promote", version, stack, SHADOW, figures, now)


def dismiss(home: Home, agent: str, number: int, now: datetime, by: str, reason: str) -> bool:
    """Take the alias Challenger from a version; return whether it had it."""
    with _turn(home, agent):
        if models.alias(home, agent, "Challenger") != number:
            return False
        body = {"number": number, "by": by, "reason": reason}
        evidence = _evidence(home, models.version(home, agent, number))
        history.append(home.promotions, now, agent, DISMISSED, body | evidence)
        models.set_alias(home, agent, "Challenger", None)
    return True


def was_production(home: Home, agent: str, at: datetime) -> Tenure:
    """Return which version was Production at a moment, and the evidence that put it there.

    Raises ``UnknownVersion`` before the first one, ``CorruptFile`` when the ledger was altered.
    """
    changes = production_history(home, agent)
    past = [change for change in changes if change.at <= at]
    if not past:
        first = f"the first since {changes[0].at.isoformat()}" if changes else "there was never one"
        raise UnknownVersion(f"{agent}: no Production at {at.isoformat()}: {first}")
    change = past[-1]
    until = changes[len(past)].at if len(past) < len(changes) else None
    report = change.gate_report_sha256
    return Tenure(change, until, verdict_by_report(home, agent, report) if report else None)


def production_history(home: Home, agent: str) -> list[Change]:
    """Return every confirmed change of Production, oldest first."""
    entries = history.read(home.promotions, agent)
    confirmed = {entry.body["change"] for entry in entries if entry.kind == CONFIRMED}
    return [
        _as_change(entry) for entry in entries if entry.kind == CHANGE and entry.id in confirmed
    ]


def audit(home: Home, agents: Sequence[str]) -> list[str]:
    """Return, in sentences, everything somebody did behind Ratchet's back; empty: nothing.

    Entries altered, removed, inserted or moved; aliases of ``agents`` that MLflow and the ledger
    disagree about. Aliases are compared only with a ledger that is whole.
    """
    found = history.audit(home.promotions)
    if found:
        return [*found, "restore the ledger from a backup; its aliases cannot be judged without it"]
    headless = history.unguarded(home.promotions)
    return headless + [one for agent in agents for one in discrepancies(home, agent)]


def discrepancies(home: Home, agent: str) -> list[str]:
    """Return, in sentences, where MLflow and the ledger disagree; empty when all is well."""
    stack = _stack(production_history(home, agent))
    held = models.aliases(home, agent)
    expected: dict[models.Alias, int | None] = {
        "Production": stack[-1].number if stack else None,
        "Previous": stack[-2].number if len(stack) > 1 else None,
        "Challenger": _challenger(home, agent),
    }
    found = []
    for alias, number in expected.items():
        if held.get(alias) != number:
            found.append(
                f"{agent}: MLflow says {alias} is version {held.get(alias)}, the ledger says "
                f"{number}; somebody moved it by hand: promote or roll back with `ratchet`"
            )
    hashes = {entry.hash for entry in history.read(home.promotions, agent)}
    for version in models.versions(home, agent):
        tag = version.tags.get("ledger_entry")
        if tag is not None and tag not in hashes:
            found.append(
                f"{agent}: version {version.number} was promoted by ledger entry {tag[:12]}, which "
                "is gone: the ledger was cut; restore it from a backup"
            )
    return found


def _gate_allows(home: Home, version: Version, stack: list[Change]) -> str:
    """Return the gate's reason, or raise ``PromotionRefused``."""
    where = f"{version.agent} version {version.number}"
    override = "judge it, or override with a name and a reason (--by, --reason)"
    judgement = newest_verdict(home, version)
    if judgement is None:
        raise PromotionRefused(f"{where}: the gate never judged this bundle; {override}")
    if not judgement.report.passed:
        raise PromotionRefused(f"{where}: {judgement.report.summary}; {override}")
    champion = stack[-1].number if stack else None
    if judgement.champion != champion:
        raise PromotionRefused(
            f"{where}: judged against version {judgement.champion}, but Production is now version "
            f"{champion}; {override}"
        )
    return judgement.report.summary


@contextmanager
def _turn(home: Home, agent: str) -> Iterator[list[Change]]:
    """Hold the home's lock, settle what was interrupted, and give the stack of versions."""
    home.make(home.promotions.parent)
    with home.promotions.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _settle(home, agent)
        yield _stack(production_history(home, agent))


def _settle(home: Home, agent: str) -> None:
    """Confirm or abandon a change that was interrupted."""
    entries = history.read(home.promotions, agent)
    ended = {e.body["change"] for e in entries if e.kind in (CONFIRMED, ABANDONED)}
    for entry in entries:
        if entry.kind != CHANGE or entry.id in ended:
            continue
        moved = models.alias(home, agent, "Production") == entry.body["number"]
        if moved:
            _mirror(home, [*_stack(production_history(home, agent))], _as_change(entry), entry.hash)
        outcome = CONFIRMED if moved else ABANDONED
        history.append(home.promotions, entry.at, agent, outcome, {"change": entry.id})


def _change(
    home: Home,
    action: Action,
    version: Version,
    stack: list[Change],
    by: str,
    reason: str,
    now: datetime,
) -> Change:
    """Write the intent, move the aliases, confirm."""
    earlier = production_history(home, version.agent)
    if earlier and now < earlier[-1].at:
        raise RegistryError(
            f"{version.agent}: the newest change is of {earlier[-1].at.isoformat()}, later than "
            f"now ({now.isoformat()}); set the clock right"
        )
    body: dict[str, Any] = {
        "action": action,
        "number": version.number,
        "replaced": stack[-1].number if stack else None,
        "by": by,
        "reason": reason,
        **_evidence(home, version),
    }
    entry = history.append(home.promotions, now, version.agent, CHANGE, body)
    change = _as_change(entry)
    _mirror(home, stack, change, entry.hash)
    history.append(home.promotions, now, version.agent, CONFIRMED, {"change": entry.id})
    return change


def _evidence(home: Home, version: Version) -> dict[str, str | None]:
    """Return what stands behind a version, as an alias change records it."""
    judgement = newest_verdict(home, version)
    return {
        "bundle_sha256": version.bundle_sha256,
        "gate_verdict": judgement.report.verdict if judgement else None,
        "gate_report_sha256": judgement.report.sha256 if judgement else None,
        "dataset_sha256": version.tags.get("dataset_sha256", ""),
        "commit": version.tags.get("git_commit", ""),
    }


def _challenger(home: Home, agent: str) -> int | None:
    """Return who the ledger says is Challenger: the newest named, until promoted or dropped."""
    entries = history.read(home.promotions, agent)
    confirmed = {entry.body["change"] for entry in entries if entry.kind == CONFIRMED}
    number: int | None = None
    for entry in entries:
        if entry.kind == CHALLENGE:
            number = entry.body["number"]
        elif entry.kind == DISMISSED or entry.id in confirmed:
            number = None if entry.body["number"] == number else number
    return number


def _mirror(home: Home, before: list[Change], change: Change, entry_hash: str) -> None:
    """Bring MLflow's aliases in line; Production moves first, the rest can be repeated."""
    agent, after = change.agent, _stacked(before, change)
    models.set_alias(home, agent, "Production", change.number)
    models.set_alias(home, agent, "Previous", after[-2].number if len(after) > 1 else None)
    if models.alias(home, agent, "Challenger") == change.number:
        models.set_alias(home, agent, "Challenger", None)
    models.set_tag(home, agent, change.number, "ledger_entry", entry_hash)


def _stack(changes: list[Change]) -> list[Change]:
    stack: list[Change] = []
    for change in changes:
        stack = _stacked(stack, change)
    return stack


def _stacked(stack: list[Change], change: Change) -> list[Change]:
    return stack[:-1] if change.action == "rollback" else [*stack, change]


def _as_change(entry: history.Entry) -> Change:
    return Change(id=entry.id, at=entry.at.astimezone(UTC), agent=entry.agent, **entry.body)
