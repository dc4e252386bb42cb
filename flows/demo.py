"""``ratchet demo``: the main job on bundled data, end to end, every path seen.

Owns the order: data → retraining of each agent → a paper session held against its backtest → a
rollback while the worker trades → the table. All of the work is done by the stages and flows that
do it every day.
"""

import getpass
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console

from core.home import Home
from core.progress import Progress, Report
from core.settings import Params
from flows import running, scoreboard
from flows.feeds import Feed, feeds
from flows.progress import Terminal, listening

if TYPE_CHECKING:
    from pipelines.paper import Compared, Switched
    from pipelines.retrain import Retrained

BARS_PER_SECOND = 25.0  # of the session with the rollback: slow enough to see the worker follow


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything the demo found out."""

    retrained: tuple["Retrained", ...]
    paper: "Compared"
    rolled_back: "Switched | None"  # None: nothing was promoted that could be rolled back
    seconds: float


def run(home: Home, params: Params, console: Console, agents: Sequence[str], size: str) -> int:
    """Run the demo and print what it came to; an honest *no* of the gate is a success, too."""
    began = time.monotonic()
    for name in agents:
        params.agent(name)
    params.size(size)
    console.print(
        f"Ratchet demo: {', '.join(agents)}; size {size}; paper only; state in {home.root}"
    )
    with Terminal(console) as show:
        data = Preparation(home, params, agents, show)
        data.start()
        show(Progress("prefect", 0.0, "starting"))
        with running.prefect_for(home) as api:
            show(Progress("prefect", 1.0, f"every retraining below is a run of {api}"))
            retrained = [_retrain(agent, size, data, show) for agent in agents]
            from pipelines import paper

            compared = paper.compare(home, params, agents, show)
            promoted = next((done.agent for done in retrained if done.promoted), None)
            switched = None
            if promoted is not None:
                switched = paper.switch(
                    home, params, promoted, lambda: _roll_back(promoted), BARS_PER_SECOND, show
                )
    outcome = Outcome(tuple(retrained), compared, switched, time.monotonic() - began)
    scoreboard.show(home, params, console, outcome)
    return 0


def _retrain(agent: str, size: str, data: "Preparation", show: Terminal) -> "Retrained":
    from flows.retraining import retrain

    data.wait_for(agent)
    with listening(show.of(agent)):
        return retrain(agent, size=size, reason="demo")


def _roll_back(agent: str) -> None:
    from flows.rolling_back import rollback

    rollback(agent, by=getpass.getuser(), reason="shown by the demo")


class Preparation:
    """Makes the datasets of one agent after the other, beside the training of those before."""

    def __init__(self, home: Home, params: Params, agents: Sequence[str], show: Terminal) -> None:
        self._home = home
        self._params = params
        self._show = show
        self._ready: dict[str, Future[None]] = {agent: Future() for agent in agents}
        self._thread = threading.Thread(target=self._prepare_all, name="data", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_for(self, agent: str) -> None:
        """Return when the datasets of ``agent`` are there; raise what kept them from being made."""
        self._ready[agent].result()

    def _prepare_all(self) -> None:
        problem: BaseException | None = None
        for agent, ready in self._ready.items():
            if problem is None:
                try:
                    self._prepare(agent, self._show.of(agent))
                except BaseException as error:  # noqa: BLE001 - raised again by wait_for
                    problem = error
            if problem is None:
                ready.set_result(None)
            else:
                ready.set_exception(problem)

    def _prepare(self, agent: str, report: Report) -> None:
        from pipelines import ingest, workspace

        wanted: list[Feed] = feeds(self._params, [agent])
        for number, feed in enumerate(wanted):
            report(
                Progress(
                    "datasets", 0.2 * number / len(wanted), f"{feed.symbol} from {feed.source}"
                )
            )
            now = datetime.now(UTC)
            ingest.run(self._home, self._params, feed.symbol, feed.source, feed.interval, now=now)
        targets = [f"featurize@{feed.dataset}" for feed in wanted]

        def told(progress: Progress) -> None:
            report(Progress("datasets", 0.2 + 0.7 * progress.done, progress.text))

        workspace.reproduce(self._home, targets, told)
        names = ", ".join(feed.symbol for feed in wanted)
        report(Progress("datasets", 1.0, f"{names}: ingested, validated, featurized (dvc repro)"))
