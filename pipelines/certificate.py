"""The parity certificate: a recorded session lived through again by training's own path.

Owns which bars, which bundle and which rules a session is replayed with, and what the certificate
says. The comparison, exact to the last bit, is ``pipelines/parity.py``'s.
"""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from core.errors import ExecutionError, NotEnoughData
from core.home import Home
from core.risk import Reason
from core.rules import Rules
from core.settings import Params
from features.dataset import Dataset
from pipelines.dataset import load_dataset
from pipelines.parity import Difference, first_difference
from registry import models
from registry.bundle import Bundle, load_bundle
from serving.ledger import LedgerReader, rows
from serving.rulebook import RuleBook, rulebook
from serving.session import rules_of
from training import backtest
from training.splits import Window
from training.trading import Imposed

TAG = "parity"  # of the version in MLflow


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

    @property
    def passed(self) -> bool:
        return self.difference is None

    def __str__(self) -> str:
        said = f"DIFFERS: {self.difference}" if self.difference else "equal to the last bit"
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
        return words


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the ledger knows of one sleeve's session."""

    session: int
    agent: str
    version: str
    bundle_sha256: str
    decisions: tuple[rows.Decision, ...]
    fills: tuple[rows.Fill, ...]
    cuts: tuple[rows.Clip, ...] = ()
    rules: RuleBook | None = None  # by which it was traded; None: the ledger is older than that

    def imposed(self) -> Imposed:
        """Return what it obeyed besides its policy, by bar of its own."""
        times = [decision.bar_time for decision in self.decisions]
        changed: dict[int, Rules] = {}
        for after, rules in self.rules.entries if self.rules else ():
            changed[0 if after is None else bisect_right(times, after)] = rules
        cuts = {times.index(cut.bar_time): (cut.allowed, Reason(cut.reason)) for cut in self.cuts}
        return Imposed(changed, cuts)


def certify(home: Home, params: Params, session: int) -> tuple[Certificate, ...]:
    """Replay a session agent by agent; the result stands on each version in MLflow.

    Raises ``ExecutionError`` where there is no such session or Production changed inside it.
    """
    certificates = []
    for found in recorded(home, session):
        made = models.version(home, found.agent, int(found.version))
        bundle = load_bundle(models.fetch(home, made).folder, found.bundle_sha256)
        dataset = load_dataset(home, params, found.agent, bundle.spec)
        rules, cash = rules_of(params, found.agent), params.account.cash
        one = certificate_of(home, found, bundle, dataset, rules, cash)
        models.set_tag(home, found.agent, made.number, TAG, str(one))
        certificates.append(one)
    return tuple(certificates)


def newest_session(home: Home) -> int | None:
    """Return the newest session in which something was decided, None where there is none."""
    if not home.ledger.exists():
        return None
    with LedgerReader(home.ledger) as ledger:
        found = ledger.rows(rows.Decision, newest=1)
    return found[0].session if found else None


def recorded(home: Home, session: int) -> list[Recorded]:
    """Return every sleeve of a session; raise ``ExecutionError`` where it cannot be replayed."""
    with LedgerReader(home.ledger) as ledger:
        decisions = ledger.rows(rows.Decision, session=session)
        fills = ledger.rows(rows.Fill, session=session)
        cuts = ledger.rows(rows.Clip, session=session)
        agents = dict.fromkeys(decision.agent for decision in decisions)
        books = {agent: rulebook(ledger, session, agent) for agent in agents}
    if not decisions:
        raise ExecutionError(
            f"session {session}: no decision in {home.ledger}; `ratchet ledger events` shows which "
            "sessions there are"
        )
    found = []
    for agent in agents:
        own = tuple(one for one in decisions if one.agent == agent)
        versions = dict.fromkeys((one.model_version, one.bundle_sha256) for one in own)
        if len(versions) > 1:
            names = ", ".join(version for version, _ in versions)
            raise ExecutionError(
                f"session {session}: {agent} was traded by versions {names}; a session is replayed "
                "with the one version that decided all of it"
            )
        ((version, sha256),) = versions
        traded = tuple(fill for fill in fills if fill.agent == agent)
        cut = tuple(one for one in cuts if one.agent == agent)
        found.append(Recorded(session, agent, version, sha256, own, traded, cut, books[agent]))
    return found


def certificate_of(
    home: Home, found: Recorded, bundle: Bundle, dataset: Dataset, rules: Rules, cash: float
) -> Certificate:
    """Return the certificate of one sleeve, replayed on ``dataset`` by ``bundle``.

    ``rules`` are those of a ledger that knows none. What the account cut is cut again.
    """
    first = np.datetime64(found.decisions[0].bar_time.replace(tzinfo=None), "ns")
    start = int(np.searchsorted(dataset.market.time, first))
    stop = start + len(found.decisions)
    if stop > len(dataset):
        raise NotEnoughData(
            f"{found.agent}: session {found.session} has {len(found.decisions)} bars from "
            f"{first}, the dataset only {len(dataset) - start}; ingest the bars it traded"
        )
    window, imposed = Window(start, stop), found.imposed()
    result = backtest.run(bundle, dataset, bundle.scaler, rules, window, cash, imposed)
    value = sum(abs(fill.shares) * fill.price for fill in found.fills)
    slippage = sum(fill.slippage for fill in found.fills)
    return Certificate(
        session=found.session,
        agent=found.agent,
        version=found.version,
        bars=len(found.decisions),
        fills=len(found.fills),
        slippage=slippage,
        slippage_bps=1e4 * slippage / value if value else 0.0,
        difference=first_difference(home.ledger, found.agent, result, found.session),
        cuts=len(found.cuts),
        rule_changes=len(found.rules.entries) - 1 if found.rules else 0,
    )
