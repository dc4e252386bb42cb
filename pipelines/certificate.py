"""The parity certificate: a recorded session lived through again by training's own path.

Owns which bars, which bundle and which rules a session is replayed with, and what the certificate
says. The comparison, exact to the last bit, is ``pipelines/parity.py``'s.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from core.errors import ExecutionError, NotEnoughData, RatchetError
from core.home import Home
from core.risk import Reason
from core.rules import Rules
from core.settings import Params
from features.dataset import Dataset
from pipelines.dataset import load_dataset
from pipelines.parity import Difference, differences
from pipelines.timed import timed_dataset
from registry import models
from registry.bundle import Bundle, load_bundle
from serving.ledger import LedgerReader, rows
from serving.rulebook import RuleBook, rulebook
from serving.session import rules_of
from training import backtest
from training.trading import Imposed, Seat

TAG = "parity"  # of the version in MLflow: the session certified last; each has `parity.session-N`
STEERING = frozenset({"paused", "resumed", "stopped", "let go"})  # by people, between two bars


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whether one sleeve's session is what training's path makes of the same bars."""

    session: int
    agent: str
    version: str
    bars: int
    fills: int
    slippage: float  # account currency, what the fills cost beyond the price they aimed at
    slippage_bps: float  # of the traded value
    difference: Difference | None  # the first; None: equal to the last bit
    cuts: int = 0  # verdicts a limit outside the sleeve cut; replayed as recorded
    rule_changes: int = 0  # while it was traded; replayed by the rules of each bar
    interventions: int = 0  # bars at which something stood in for the policy; replayed as recorded
    problem: str = ""  # why it could not be replayed

    @property
    def passed(self) -> bool:
        return self.difference is None and not self.problem

    def __str__(self) -> str:
        said = f"DIFFERS: {self.difference}" if self.difference else "equal to the last bit"
        said = f"NOT REPLAYED: {self.problem}" if self.problem else said
        return (
            f"session {self.session}, {self.agent} version {self.version}, {self.bars} bars: {said}"
            f"; {self.fills} fills, slippage {self.slippage:.2f} ({self.slippage_bps:.1f} bps)"
            f"{self._imposed}"
        )

    @property
    def _imposed(self) -> str:
        """What the replay took from the ledger besides decisions, in words."""
        words = f"; {self.cuts} verdicts cut by the account, as recorded" if self.cuts else ""
        if self.rule_changes:
            words += f"; rules changed {self.rule_changes} times, each bar by its own"
        if self.interventions:
            words += f"; {self.interventions} pauses, stops and missing answers, as recorded"
        return words


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the ledger knows of one sleeve's session."""

    session: int
    agent: str
    decisions: tuple[rows.Decision, ...]
    fills: tuple[rows.Fill, ...]
    cuts: tuple[rows.Clip, ...] = ()
    rules: RuleBook | None = None  # by which it was traded; None: the ledger is older than that
    events: tuple[rows.RiskEvent, ...] = ()
    stops: tuple[rows.Intervention, ...] = ()
    heard: tuple[rows.BarSeen, ...] = ()  # with a decision timer: every part of every bar

    @property
    def times(self) -> list[datetime]:
        return [decision.bar_time for decision in self.decisions]

    @property
    def parts(self) -> list["Part"]:
        """Return the bars of each version, one after the other."""
        found: list[Part] = []
        for number, decision in enumerate(self.decisions):
            version = decision.model_version, decision.bundle_sha256
            if not found or (found[-1].version, found[-1].bundle_sha256) != version:
                found.append(Part(*version, number, number))
            found[-1] = replace(found[-1], stop=number + 1)
        return found

    @property
    def unanswered(self) -> frozenset[datetime]:
        """Return the bars at which nobody answered, as an event of their time says."""
        return frozenset(
            e.bar_time for e in self.events if e.kind == "policy failed" and e.bar_time
        )

    def weights(self) -> dict[int, float]:
        """Return what was asked in place of the policy, by bar, as events say: never as verdicts
        do, or a false verdict would explain itself."""
        found: dict[int, float] = {}
        paused, stopped = False, ""
        told = sorted(
            (e for e in self.events if e.bar_time and e.kind in STEERING), key=_event_time
        )
        for number, time in enumerate(self.times):
            while told and _event_time(told[0]) < time:
                event = told.pop(0)
                if event.kind in ("paused", "resumed"):
                    paused = event.kind == "paused"
                else:
                    stopped = event.detail if event.kind == "stopped" else ""
            if stopped.endswith("policy flatten"):
                found[number] = 0.0
            elif paused or stopped or time in self.unanswered:
                found[number] = math.nan
        return found

    def imposed(self, seats: Mapping[int, Seat] | None = None) -> Imposed:
        """Return what it obeyed besides its policy, by bar of its own."""
        times = self.times
        changed: dict[int, Rules] = {}
        for after, rules in self.rules.entries if self.rules else ():
            changed[0 if after is None else bisect_right(times, after)] = rules
        cuts = {times.index(cut.bar_time): (cut.allowed, Reason(cut.reason)) for cut in self.cuts}
        recalls: dict[int, list[bool]] = {}
        for stop in self.stops:
            recalls.setdefault(times.index(stop.bar_time), []).append(stop.policy == "flatten")
        return Imposed(changed, cuts, self.weights(), recalls, seats or {})


@dataclass(frozen=True, slots=True)
class Part:
    """The bars of a session that one version decided."""

    version: str
    bundle_sha256: str
    start: int  # bar of the session
    stop: int


# A version, and the bars as it sees them; of an agent with a timer, what it looks back on, too.
Material = Callable[[Part], tuple[Bundle, Dataset] | tuple[Bundle, Dataset, np.ndarray]]


def certify(home: Home, params: Params, session: int) -> tuple[Certificate, ...]:
    """Replay a session agent by agent, and each version's part of it by that version.

    The result stands on each version in MLflow. An agent whose session cannot be replayed gets a
    certificate that says why. Raises ``ExecutionError`` where there is no such session.
    """
    certificates: list[Certificate] = []
    for found in recorded(home, session):
        made: dict[str, list[str]] = {}
        agent = found.agent

        def material(
            part: Part, agent: str = agent, found: Recorded = found
        ) -> tuple[Bundle, Dataset] | tuple[Bundle, Dataset, np.ndarray]:
            made = models.version(home, agent, int(part.version))
            bundle = load_bundle(models.fetch(home, made).folder, part.bundle_sha256)
            if found.heard:
                of = home, params, agent, found.heard, found.times, bundle.spec
                return bundle, *timed_dataset(*of)
            return bundle, load_dataset(home, params, agent, bundle.spec)

        try:
            rules, cash = rules_of(params, agent), params.account.cash
            of_agent = certificates_of(home, found, material, rules, cash)
        except RatchetError as error:
            of_agent = [_impossible(found, part, str(error)) for part in found.parts]
        for one in of_agent:
            made[one.version] = [*made.get(one.version, []), str(one)]
        for version, said in made.items():
            for tag in (TAG, f"{TAG}.session-{session}"):
                models.set_tag(home, agent, int(version), tag, "; ".join(said))
        certificates += of_agent
    return tuple(certificates)


def newest_session(home: Home) -> int | None:
    """Return the newest session in which something was decided, None where there is none."""
    if not home.ledger.exists():
        return None
    with LedgerReader(home.ledger) as ledger:
        found = ledger.rows(rows.Decision, newest=1)
    return found[0].session if found else None


def recorded(home: Home, session: int) -> list[Recorded]:
    """Return every sleeve of a session; raise ``ExecutionError`` where there is none."""
    with LedgerReader(home.ledger) as ledger:
        decisions = ledger.rows(rows.Decision, session=session)
        agents = dict.fromkeys(decision.agent for decision in decisions)
        found = [
            Recorded(
                session,
                agent,
                tuple(one for one in decisions if one.agent == agent),
                tuple(ledger.rows(rows.Fill, session=session, agent=agent)),
                tuple(ledger.rows(rows.Clip, session=session, agent=agent)),
                rulebook(ledger, session, agent),
                tuple(ledger.rows(rows.RiskEvent, session=session, agent=agent)),
                tuple(ledger.rows(rows.Intervention, session=session, agent=agent)),
                _heard(ledger, session, agent),
            )
            for agent in agents
        ]
    if not found:
        raise ExecutionError(
            f"session {session}: no decision in {home.ledger}; `ratchet ledger events` shows which "
            "sessions there are"
        )
    return found


def _heard(ledger: LedgerReader, session: int, agent: str) -> tuple[rows.BarSeen, ...]:
    """Return what an agent with a decision timer heard; nothing for one that decides at closes."""
    newest = ledger.rows(rows.BarSeen, session=session, agent=agent, newest=1)
    if not newest or not newest[0].decide_seconds:
        return ()
    return tuple(ledger.rows(rows.BarSeen, session=session, agent=agent))


def certificate_of(
    home: Home, found: Recorded, bundle: Bundle, dataset: Dataset, rules: Rules, cash: float
) -> Certificate:
    """Return the certificate of a sleeve that one version traded, ``bundle`` on ``dataset``."""
    return certificates_of(home, found, lambda part: (bundle, dataset), rules, cash)[0]


def certificates_of(
    home: Home, found: Recorded, material: Material, rules: Rules, cash: float
) -> list[Certificate]:
    """Return the certificate of each version's part of a session, lived through in one piece.

    ``rules`` are those of a ledger that knows none. What was imposed on it (cuts, pauses, the kill
    switch, missing answers) is imposed again. Raises ``NotEnoughData`` where bars are missing.
    """
    seats = {part.start: _seat(found, *material(part)) for part in found.parts}
    first, imposed = seats[0], found.imposed(seats)
    (result,) = backtest.run_all([first], len(found.decisions), rules, cash, imposed)
    different = list(differences(home.ledger, found.agent, result, found.session, found.unanswered))
    return [_certificate(found, part, imposed, different) for part in found.parts]


def _seat(
    found: Recorded, bundle: Bundle, dataset: Dataset, looks: np.ndarray | None = None
) -> Seat:
    first = np.datetime64(found.decisions[0].bar_time.replace(tzinfo=None), "ns")
    start = int(np.searchsorted(dataset.market.time, first))
    if start + len(found.decisions) > len(dataset):
        raise NotEnoughData(
            f"{found.agent}: session {found.session} has {len(found.decisions)} bars from "
            f"{first}, the dataset only {len(dataset) - start}; ingest the bars it traded"
        )
    return Seat(bundle, dataset, bundle.scaler, start, looks)


def _certificate(
    found: Recorded, part: Part, imposed: Imposed, different: Sequence[Difference]
) -> Certificate:
    times = found.times
    begin, end = times[part.start], times[part.stop - 1]
    last = part.stop == len(times)
    fills = [fill for fill in found.fills if begin <= fill.bar_time <= end]
    value = sum(abs(fill.shares) * fill.price for fill in fills)
    slippage = sum(fill.slippage for fill in fills)
    inside = range(part.start, part.stop)
    own = [d for d in different if begin <= d.bar_time and (last or d.bar_time <= end)]
    if not part.start:  # what comes before the first bar is the first part's as well
        own = [d for d in different if last or d.bar_time <= end]
    return Certificate(
        session=found.session,
        agent=found.agent,
        version=part.version,
        bars=len(inside),
        fills=len(fills),
        slippage=slippage,
        slippage_bps=1e4 * slippage / value if value else 0.0,
        difference=own[0] if own else None,
        cuts=sum(number in imposed.cuts for number in inside),
        rule_changes=sum(number in imposed.rules for number in inside if number),
        interventions=sum(number in imposed.weights for number in inside)
        + sum(number in imposed.recalls for number in inside),
    )


def _impossible(found: Recorded, part: Part, problem: str) -> Certificate:
    return Certificate(
        session=found.session,
        agent=found.agent,
        version=part.version,
        bars=part.stop - part.start,
        fills=0,
        slippage=0.0,
        slippage_bps=0.0,
        difference=None,
        problem=problem,
    )


def _event_time(event: rows.RiskEvent) -> datetime:
    if event.bar_time is None:
        raise ExecutionError(f"{event.agent}: event {event.kind!r} of no bar")
    return event.bar_time
