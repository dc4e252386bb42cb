"""A paper session over the reserved bars: held against its backtest, or changed while it runs.

Owns the two exercises the demo ends with. Trading is ``serving``'s, the backtest ``training``'s,
the comparison ``pipelines/parity.py``'s.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from core.errors import ExecutionError
from core.home import Home
from core.progress import Progress, Report, silent
from core.settings import Params
from pipelines.certificate import recorded
from pipelines.dataset import load_dataset
from pipelines.parity import Difference, first_difference
from registry import models
from registry.bundle import load_bundle
from serving.ledger import LedgerReader, rows
from serving.results import SessionResult
from serving.service import make_feed
from serving.session import rules_of
from serving.worker import Worker
from training import backtest
from training.splits import Window
from training.trading import Imposed

POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Compared:
    """A session, and where each sleeve first differs from the backtest of the same bars."""

    session: SessionResult
    differences: Mapping[str, Difference | None]  # by agent; None: not at all


@dataclass(frozen=True, slots=True)
class Switched:
    """A session during which Production changed."""

    session: SessionResult
    bars: int  # decided in the session
    bars_before: int  # of them decided by the first version
    versions: tuple[str, ...]  # in the order in which they decided


def compare(home: Home, params: Params, agents: Sequence[str], report: Report = silent) -> Compared:
    """Trade the reserved bars on paper as fast as possible, then backtest the same bars."""
    report(Progress("paper", 0.0, f"{params.split.paper_bars} reserved bars of each agent"))
    feed = make_feed(home, params, agents, bars_per_second=0.0)
    session = Worker(home, params, agents, feed, fresh=True).run()
    imposed = {one.agent: one.imposed() for one in recorded(home, session.session)}
    differences: dict[str, Difference | None] = {}
    for number, agent in enumerate(agents, start=1):
        report(Progress("paper", 0.5 + 0.4 * number / len(agents), f"backtest of {agent}"))
        result = _backtest(home, params, agent, imposed[agent])
        differences[agent] = first_difference(home.ledger, agent, result, session.session)
    same = sum(found is None for found in differences.values())
    words = f"{same} of {len(agents)} sleeves equal their backtest to the last bit"
    report(Progress("paper", 1.0, words))
    return Compared(session, differences)


def _backtest(home: Home, params: Params, agent: str, imposed: Imposed) -> backtest.BacktestResult:
    copy = models.production(home, agent)
    bundle = load_bundle(copy.folder, copy.bundle_sha256)
    dataset = load_dataset(home, params, agent, bundle.spec)
    reserved = Window(len(dataset) - params.split.paper_bars, len(dataset))
    rules, cash = rules_of(params, agent), params.account.cash
    return backtest.run(bundle, dataset, bundle.scaler, rules, reserved, cash, imposed)


def switch(
    home: Home,
    params: Params,
    agent: str,
    change: Callable[[], object],
    bars_per_second: float,
    report: Report = silent,
) -> Switched:
    """Trade the reserved bars at a pace and call ``change`` a third of the way through.

    Raises ``ExecutionError`` where the session ended before Production changed.
    """
    total = params.split.paper_bars
    report(Progress("rollback", 0.0, f"{agent} trades {total} bars, {bars_per_second:g} a second"))
    feed = make_feed(home, params, [agent], bars_per_second=bars_per_second)
    worker = Worker(home, params, [agent], feed, fresh=True)
    last_session = _newest_session(home)
    with ThreadPoolExecutor(1, thread_name_prefix="paper") as pool:
        running = pool.submit(worker.run)
        try:
            while not running.done() and _decided(home, last_session + 1) < total // 3:
                time.sleep(POLL_SECONDS)
            report(Progress("rollback", 0.4, f"{agent}: changing Production while it trades"))
            change()
        except BaseException:
            worker.stop("the change of Production failed")
            raise
        session = running.result()
    return _switched(home, agent, session, report)


def _switched(home: Home, agent: str, session: SessionResult, report: Report) -> Switched:
    with LedgerReader(home.ledger) as ledger:
        decisions = ledger.rows(rows.Decision, session=session.session, agent=agent)
    versions = tuple(dict.fromkeys(one.model_version for one in decisions))
    if len(versions) < 2:
        raise ExecutionError(
            f"{agent}: the session ended before the worker could follow the change of Production; "
            "trade more bars, or more slowly"
        )
    before = sum(one.model_version == versions[0] for one in decisions)
    words = f"version {versions[0]} decided {before} bars, version {versions[1]} the rest"
    report(Progress("rollback", 1.0, f"{agent}: {words}"))
    return Switched(session, len(decisions), before, versions)


def _newest_session(home: Home) -> int:
    if not home.ledger.exists():
        return 0
    with LedgerReader(home.ledger) as ledger:
        return ledger.newest_session() or 0


def _decided(home: Home, session: int) -> int:
    if not home.ledger.exists():
        return 0
    with LedgerReader(home.ledger) as ledger:
        return len(ledger.rows(rows.Decision, session=session))
