"""The worker: feeds to agents to risk to broker to ledger, one message at a time.

Owns the queue and the main loop. Bars, moved aliases and commands come from threads; only the loop
touches sleeves and ledger, so a model is swapped between bars and never inside one. What a message
means is in ``serving/handling.py``, how sleeves live through bars in ``serving/steps.py``. Knows
nothing of how models are made; must not import Ray, torch or Optuna.
"""

import os
import queue
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from threading import Event

from core.errors import Fenced, StorageError
from core.home import Home
from core.masking import confidential, masked
from core.portfolio import AccountLimits
from core.settings import Params
from features.account import warm_up
from serving import switch
from serving.account import Account
from serving.brokers.paper import PaperBroker
from serving.brokers.port import Broker, RemoteBroker, remote
from serving.challengers import Challengers
from serving.deciding import Desk, LocalDesk
from serving.feed_thread import FeedThread
from serving.feeds import Feed
from serving.fencing import fenced
from serving.floor import Floor
from serving.following import Follower, Shelf
from serving.handling import Handler
from serving.lease import leased
from serving.ledger import Ledger, rows
from serving.lock import worker_lock
from serving.logs import logging_to
from serving.messages import BarsArrived, FeedEnded, Filled, Message, Pause, Reload, Stop
from serving.metrics import Meters
from serving.noting import Notes
from serving.process import on_signals
from serving.results import SessionResult, summarise
from serving.session import (
    Model,
    Opening,
    Seat,
    account_of,
    furthest_behind,
    left_over,
    open_session,
    production_models,
    require_paper,
    session_event,
)
from serving.shadow import Shadows
from serving.status_writer import StatusWriter
from serving.steps import Steps
from serving.switch_minder import SwitchMinder
from serving.undisturbed import settled
from serving.watch import Watch, watching

WAIT_SECONDS = 0.5  # for a message, until there is another look around


class Worker:
    """Trades some agents on one feed until it ends or the worker is told to stop."""

    def __init__(
        self,
        home: Home,
        params: Params,
        agents: Sequence[str],
        feed: Feed,
        *,
        shelf: Shelf | None = None,
        broker: Broker | None = None,
        desk: Desk | None = None,
        challengers: Challengers | None = None,
        fresh: bool = False,
        stay: bool = False,
        environment: Mapping[str, str] = os.environ,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        watch: Watch | None = None,
        settings: Callable[[], Params] | None = None,
    ) -> None:
        """``fresh`` opens a new session even where one could be resumed; ``stay`` keeps following
        aliases after the feed has ended, until stopped. Raises ``NotAllowed`` in live mode."""
        if broker is None or not broker.remote:  # a remote one holds account and mode together
            require_paper(environment.get("TRADING_MODE"))
        self._home = home
        self._params = params
        self._agents = tuple(agents)
        self._feed = feed
        self._shelf = shelf or _registry_shelf(home)
        self._broker = broker or PaperBroker()
        self._desk = desk or LocalDesk()
        self._shadows = Shadows(home, params, challengers)
        self._remote: RemoteBroker | None = None
        self._fresh = fresh
        self._stay = stay
        self._environment = environment
        self._now = now
        self._settings = settings  # reads params.yaml again
        self._watch = watch or Watch(params.alerts, Meters(self._agents), now=now)
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()  # its put is safe in a signal
        self._stopping = Event()
        self._feeding = FeedThread(feed, self._queue.put, self._stopping)
        self._seats: dict[str, Seat] = {}
        self._ended = False

    def stop(self, reason: str = "asked to") -> None:
        """Finish the bar at hand and end; safe from any thread and from a signal handler."""
        self._queue.put(Stop(reason))
        self._stopping.set()  # after it: the feed's end that follows would close the session

    def kill(self, by: str) -> None:
        """Press the kill switch; safe in a signal handler."""
        switch.press(self._home, by, f"signal to process {os.getpid()}", self._now())

    def pause(self, agent: str, by: str = "") -> None:
        """Let an agent hold what it has; its books go on."""
        self._steer(agent, True, by)

    def resume(self, agent: str, by: str = "") -> None:
        self._steer(agent, False, by)

    def reload(self, by: str = "") -> None:
        """Read the settings again before the next bar; safe from a signal handler as well."""
        self._queue.put(Reload(by))

    def run(self) -> SessionResult:
        """Trade; return the session's result when the feed has ended or the worker was stopped."""
        self._home.make(self._home.root)
        with (
            worker_lock(self._home),
            leased(self._home, self._environment, self._now) as self._lease,
            logging_to(self._home) as self._log,
            on_signals(
                {
                    signal.SIGTERM: self.stop,
                    signal.SIGINT: self.stop,
                    signal.SIGHUP: self.reload,
                    signal.SIGUSR1: self.kill,
                }
            ),
            Ledger(self._home.ledger, self._now) as self._ledger,
            watching(self._watch, self._ledger),
        ):
            self._broker = fenced(self._broker, self._lease)
            self._remote = remote(self._broker)
            models = production_models(self._ledger, self._shelf, self._agents, self._log)
            self._session = open_session(
                self._ledger, self._broker.name, self._feed.name, self._fresh, self._broker.mode
            )
            self._watch.recall(self._ledger.rows(rows.RiskEvent, session=self._session))
            self._equip()
            try:
                whom = f"{self._broker.name} ({self._broker.mode}), bars by {self._feed.name}"
                self._log.info("connecting", extra={"session": self._session, "detail": whom})
                warm_up()  # or the first bar would wait
                self._open_seats(models)
                if self._remote:  # only now: it must know the ledger's orders as ours
                    self._remote.abandon(left_over(self._ledger, self._session))
                    self._remote.begin(account_of(self._ledger, self._session))
                    self._remote.listen(lambda: self._queue.put(Filled()))
                with settled():
                    self._trade()
            except BaseException as error:
                self._fail(error)
                raise
            finally:
                self._shadows.end()
                if self._remote:
                    self._remote.close()
                self._feed.close()
            sleeves = summarise(self._home.ledger, self._session, self._params.validation.calendar)
        return SessionResult(self._session, sleeves, self._steps.durations.latency, self._ended)

    def _equip(self) -> None:
        """Give the session those who write down how it goes, and mind the kill switch."""
        of = self._session, self._ledger, self._seats
        self._floor = Floor(*of, self._feed, self._desk, self._watch, self._log)
        self._notes = Notes(self._floor)
        self._switch = SwitchMinder(self._home, self._params, self._floor, self._notes)
        self._status = StatusWriter(self._home, self._floor, self._broker.name, self._now)

    def _open_seats(self, models: Mapping[str, Model]) -> None:
        opening = Opening(
            self._params, self._ledger, self._session, self._feed, self._broker, self._desk
        )
        self._seats |= {agent: opening.seat(agent, model) for agent, model in models.items()}
        account = Account(self._ledger, AccountLimits.of(self._params.portfolio))
        keep = self._params.paper.snapshot_seconds
        self._steps = Steps(self._floor, account, self._shadows, keep)
        self._handler = Handler(
            self._floor,
            self._notes,
            self._steps,
            account,
            self._remote,
            self._params,
            self._settings,
        )
        versions = {name: seat.published.version for name, seat in self._seats.items()}
        self._log.info("session", extra={"session": self._session, "versions": versions})
        self._switch.recall()
        sleeves = {name: seat.sleeve for name, seat in self._seats.items()}
        self._shadows.open(self._session, sleeves, self._feed.vix)
        self._status.show("running")

    def _trade(self) -> None:
        follower = Follower(
            self._shelf,
            {name: seat.published for name, seat in self._seats.items()},
            self._params.paper.alias_poll_seconds,
            self._queue.put,
            self._log,
        )
        traders = {name: seat.sleeve.trader for name, seat in self._seats.items()}
        try:
            self._desk.begin(traders, self._notes.agent, self._steer)
            self._lease.beat(at_once=True)
            follower.start()
            self._feeding.start(furthest_behind(self._seats.values()))
            self._loop()
        finally:
            self._stopping.set()
            self._desk.end()
            if self._feeding.began:
                follower.stop()
                self._feeding.join(10.0)

    def _steer(self, agent: str, paused: bool, by: str) -> None:
        self._queue.put(Pause(agent, paused, by))

    def _beat(self) -> None:
        self._watch.beat()
        self._lease.beat()

    def _loop(self) -> None:
        while True:
            self._beat()
            self._switch.look()
            try:
                message = self._queue.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                self._desk.tend()
                self._handler.hear()
                self._shadows.write(self._ledger)
                self._status.show("waiting")
                continue
            self._desk.tend()
            if isinstance(message, Stop):
                self._handler.hear()
                self._end("stopped", message.reason)
                return
            if isinstance(message, FeedEnded) and self._feed_ended(message):
                return
            with self._shadows.aside():
                if isinstance(message, BarsArrived):
                    self._feeding.taken()
                self._handler.handle(message)
            if self._queue.empty():
                self._shadows.write(self._ledger)
            self._status.show("running")

    def _feed_ended(self, message: FeedEnded) -> bool:
        """Close the session; return whether the worker is done as well."""
        if message.error is not None:
            raise message.error
        self._handler.hear()
        self._shadows.drain(self._ledger, self._beat)
        self._ended = True
        self._end("closed", "the feed has no more bars")
        return not self._stay

    def _end(self, kind: str, detail: str) -> None:
        """Note the end of this process's work, with every sleeve's books."""
        with self._ledger.transaction():
            for seat in self._seats.values():
                seat.sleeve.keep_snapshot()
            self._ledger.add(session_event(self._session, kind, detail))
        self._log.info(kind, extra={"session": self._session, "reason": detail})
        self._status.show("closed" if kind == "closed" else "stopped", at_once=True)

    def _fail(self, error: BaseException) -> None:
        """Note why the worker ends; where even that is impossible, the error itself says why."""
        reason = masked(f"{type(error).__name__}: {error}", confidential(self._environment))
        self._log.error("failed", extra={"reason": reason})
        self._watch.notice("failed", reason)
        if isinstance(error, Fenced):
            return  # the ledger has another writer now
        try:
            self._end("stopped", reason)
        except StorageError as problem:
            self._log.error("end not recorded", extra={"reason": str(problem)})


def _registry_shelf(home: Home) -> Shelf:
    """The registry is imported by those who use it: a worker with a shelf of its own need not."""
    from serving.shelf import RegistryShelf

    return RegistryShelf(home)
