"""The worker: feeds to agents to risk to broker to ledger, one message at a time.

Owns the queue. Bars, moved aliases and commands come from threads; only the main loop touches
sleeves and ledger, so a model is swapped between bars and never inside one. Knows nothing of how
models are made; must not import Ray, torch or Optuna.
"""

import os
import queue
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from threading import Event, Semaphore, Thread

from core.errors import ConfigError, Fenced, RatchetError, StorageError
from core.home import Home
from core.inflight import take_over
from core.portfolio import AccountLimits
from core.settings import Params
from features.account import warm_up
from serving import status, switch
from serving.account import Account
from serving.alerts import KILLED, RELEASED
from serving.brokers.paper import PaperBroker
from serving.brokers.port import Broker, News, RemoteBroker, remote
from serving.challengers import Challengers
from serving.deciding import Desk, LocalDesk
from serving.feeds import Feed, ReplayFeed
from serving.fencing import fenced
from serving.following import AliasMoved, AliasRefused, Follower, Shelf
from serving.history import FeedBar, Instrument
from serving.lease import leased
from serving.ledger import Ledger, rows
from serving.lock import worker_lock
from serving.logs import logging_to
from serving.messages import BarsArrived, FeedEnded, Filled, Message, Pause, Reload, Stop
from serving.metrics import Meters
from serving.pairing import Lone, Pair
from serving.process import on_signals
from serving.results import Durations, SessionResult, summarise
from serving.rulebook import note_rules
from serving.session import (
    Model,
    Opening,
    Seat,
    account_of,
    left_over,
    note_alias,
    open_session,
    production_models,
    require_paper,
    rules_of,
    session_event,
)
from serving.shadow import Shadows
from serving.undisturbed import settled, undisturbed
from serving.watch import Watch, watching

STEPS_AHEAD = 8  # of a feed that may wait in the queue: a moved alias waits for no more
STATUS_SECONDS = 0.5


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
        self._press: switch.Press | None = None  # of the kill switch, as the sleeves know it
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()  # its put is safe in a signal
        self._room = Semaphore(STEPS_AHEAD)
        self._stopping = Event()
        self._seats: dict[str, Seat] = {}
        self._snapshots: dict[str, float] = {}  # monotonic seconds, by agent
        self._durations = Durations()
        self._ended = False
        self._shown = 0.0  # monotonic seconds of the newest status

    def stop(self, reason: str = "asked to") -> None:
        """Finish the bar at hand and end; safe from any thread and from a signal handler."""
        self._stopping.set()
        self._queue.put(Stop(reason))

    def kill(self, by: str) -> None:
        """Press the kill switch; safe in a signal handler."""
        switch.press(self._home, by, f"signal to process {os.getpid()}", self._now())

    def _steer(self, agent: str, paused: bool, by: str) -> None:
        self._queue.put(Pause(agent, paused, by))

    def pause(self, agent: str, by: str = "") -> None:
        """Let an agent hold what it has; its books go on."""
        self._queue.put(Pause(agent, True, by))

    def resume(self, agent: str, by: str = "") -> None:
        self._queue.put(Pause(agent, False, by))

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
            try:
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
        return SessionResult(self._session, sleeves, self._durations.latency, self._ended)

    def _open_seats(self, models: Mapping[str, Model]) -> None:
        opening = Opening(
            self._params, self._ledger, self._session, self._feed, self._broker, self._desk
        )
        self._seats = {agent: opening.seat(agent, model) for agent, model in models.items()}
        self._account = Account(self._ledger, AccountLimits.of(self._params.portfolio))
        versions = {name: seat.published.version for name, seat in self._seats.items()}
        self._log.info("session", extra={"session": self._session, "versions": versions})
        self._recall_switch()
        sleeves = {name: seat.sleeve for name, seat in self._seats.items()}
        self._shadows.open(self._session, sleeves, self._feed.vix)
        self._show("running")

    def _trade(self) -> None:
        follower = Follower(
            self._shelf,
            {name: seat.published for name, seat in self._seats.items()},
            self._params.paper.alias_poll_seconds,
            self._queue.put,
            self._log,
        )
        feeding = Thread(target=self._feed_bars, args=(self._after(),), name="feed", daemon=True)
        traders = {name: seat.sleeve.trader for name, seat in self._seats.items()}
        try:
            self._desk.begin(traders, self._event, self._steer)
            self._lease.beat(at_once=True)
            follower.start()
            feeding.start()
            self._loop()
        finally:
            self._stopping.set()
            self._desk.end()
            if feeding.ident is not None:
                follower.stop()
                feeding.join(timeout=10.0)

    def _after(self) -> dict[Instrument, datetime]:
        """From where each instrument must be delivered: the agent furthest behind decides."""
        after: dict[Instrument, datetime] = {}
        for seat in self._seats.values():
            for instrument in seat.pairing.instruments:
                after[instrument] = min(after.get(instrument, seat.since), seat.since)
        return after

    def _feed_bars(self, after: Mapping[Instrument, datetime]) -> None:
        """Thread: put the feed's steps on the queue, never more than a few ahead."""
        error: BaseException | None = None
        try:
            for bars in self._feed.stream(after, self._stopping):
                while not self._room.acquire(timeout=0.1):
                    if self._stopping.is_set():
                        return
                self._queue.put(BarsArrived(bars))
        except Exception as problem:  # noqa: BLE001  (raised again by the main loop)
            error = problem
        self._queue.put(FeedEnded(error))

    def _beat(self) -> None:
        self._watch.beat()
        self._lease.beat()

    def _loop(self) -> None:
        while True:
            self._beat()
            self._mind_switch()
            try:
                message = self._queue.get(timeout=STATUS_SECONDS)
            except queue.Empty:
                self._desk.tend()
                self._hear()
                self._shadows.write(self._ledger)
                self._show("waiting")
                continue
            self._desk.tend()
            if isinstance(message, Stop):
                self._hear()
                self._end("stopped", message.reason)
                return
            if isinstance(message, FeedEnded) and self._feed_ended(message):
                return
            self._hear()
            with self._shadows.aside():
                self._handle(message)
            if self._queue.empty():
                self._shadows.write(self._ledger)
            self._show("running")

    def _policy(self, agent: str, press: switch.Press) -> switch.Policy:
        return press.policy or self._params.agent(agent).when_stopped

    def _recall_switch(self) -> None:
        """After a start: know again what the sleeves were told of the kill switch before."""
        events = self._ledger.rows(rows.RiskEvent, session=self._session, agent="")
        told = [event for event in events if event.kind in (KILLED, RELEASED)]
        if not told or told[-1].kind == RELEASED:
            return
        self._press = switch.pressed(self._home)
        if self._press is None:
            for name in self._seats:
                self._event(name, "let go", "the kill switch was released while nobody traded")
            self._account_event(RELEASED, "while nobody traded")
        elif self._press.words == told[-1].detail:
            for name, seat in self._seats.items():
                seat.sleeve.stopped_by(self._policy(name, self._press))
        else:
            self._press = None  # pressed anew

    def _mind_switch(self) -> None:
        """Stop every sleeve when the kill switch is pressed; let them trade when it is released."""
        press = switch.pressed(self._home)
        if press == self._press:
            return
        if press is None:
            for name, seat in self._seats.items():
                seat.sleeve.stopped_by(None)
                self._event(name, "let go", "the kill switch was released")
            self._account_event(RELEASED, "trading goes on from the next close")
        else:
            for name, seat in self._seats.items():
                policy = self._policy(name, press)
                seat.sleeve.stop(policy, press.words)
                self._event(name, "stopped", f"by the kill switch, policy {policy}")
            # Last, so that a start after a crash in between stops those that were left.
            self._account_event(KILLED, press.words)
        self._press = press

    def _hear(self) -> None:
        """Take what feed and broker told since the last time."""
        news = self._remote.news() if self._remote else News()
        for kind, detail in (*self._feed.events(), *news.events):
            self._account_event(kind, detail)
        self._desk.ticks(self._feed.ticks())
        for seat in self._seats.values() if self._remote else ():
            seat.sleeve.hear(news.executions)

    def _handle(self, message: Message) -> None:
        if isinstance(message, BarsArrived):
            self._room.release()
            self._desk.bars(message.bars)
            with undisturbed():
                self._bars(message.bars)
            self._prepare()
        elif isinstance(message, AliasMoved):
            self._swap(message)
        elif isinstance(message, AliasRefused):
            detail = f"version {message.published.version}: {message.reason}"
            self._event(message.agent, "alias refused", detail)
        elif isinstance(message, Pause):
            self._seats[message.agent].sleeve.paused = message.on
            self._event(message.agent, "paused" if message.on else "resumed", message.by)
        elif isinstance(message, Reload):
            self._take_over(message.by)

    def _take_over(self, by: str) -> None:
        """Live by the settings that may change in flight; record old and new, bar by bar."""
        try:
            if self._settings is None:
                raise ConfigError("these settings were given by a program, not read from a file")
            found = take_over(self._params, self._settings())
        except RatchetError as error:
            self._note_settings("settings refused", f"{error}; the old ones stay")
            return
        self._params = found.params
        with self._ledger.transaction():
            for name, seat in self._seats.items():
                rules, sleeve = rules_of(self._params, name), seat.sleeve
                note_rules(self._ledger, self._session, name, rules, sleeve.traded.newest)
                sleeve.live_by(rules)
            self._ledger.add(self._session_wide("settings", f"{found} ({by})"))
        self._account.limits = AccountLimits.of(self._params.portfolio)
        self._watch.change(self._params.alerts)
        if "paper.bars_per_second" in found.taken and isinstance(self._feed, ReplayFeed):
            self._feed.pace(self._params.paper.bars_per_second)
        self._log.info("settings", extra={"detail": str(found), "by": by})

    def _note_settings(self, kind: str, detail: str) -> None:
        with self._ledger.transaction():
            self._ledger.add(self._session_wide(kind, detail))
        self._log.warning(kind, extra={"detail": detail})

    def _session_wide(self, kind: str, detail: str) -> rows.RiskEvent:
        return rows.RiskEvent(
            session=self._session, agent="", bar_time=None, kind=kind, detail=detail
        )

    def _bars(self, bars: Sequence[FeedBar]) -> None:
        """Let every sleeve live through one step of the feed; those that can decide, together."""
        ready: dict[str, deque[Pair]] = {}
        for bar in bars:
            for name, seat in self._seats.items():
                if bar.instrument not in seat.pairing.instruments or bar.time <= seat.since:
                    continue
                for found in seat.pairing.put(bar):
                    if isinstance(found, Lone):
                        self._finish(ready.pop(name, deque()), name)
                        seat.sleeve.skip(found.bar)
                    else:
                        ready.setdefault(name, deque()).append(found)
        while ready:
            self._close({name: pairs.popleft() for name, pairs in ready.items()})
            ready = {name: pairs for name, pairs in ready.items() if pairs}

    def _prepare(self) -> None:
        """Between two steps of the feed: what would hold up a later one."""
        self._ledger.tidy()
        for seat in self._seats.values():
            seat.sleeve.traded.prepare()
            if seat.sleeve.signal is not seat.sleeve.traded:
                seat.sleeve.signal.prepare()

    def _finish(self, pairs: deque[Pair], name: str) -> None:
        """Close what a sleeve has ready before a bar of it is skipped."""
        for pair in pairs:
            self._close({name: pair})

    def _close(self, pairs: Mapping[str, Pair]) -> None:
        """Let some sleeves close a bar: one after the other, or, under limits that lie across
        them, all up to the verdict first."""
        if self._account.limits.off:
            for name, pair in pairs.items():
                self._close_together({name: pair})
        else:
            self._close_together(pairs)

    def _close_together(self, pairs: Mapping[str, Pair]) -> None:
        began = time.perf_counter()
        sleeves = {name: seat.sleeve for name, seat in self._seats.items()}
        now, keep = time.monotonic(), self._params.paper.snapshot_seconds
        due = frozenset(n for n in pairs if now - self._snapshots.get(n, -1e9) >= keep)
        weighed = {
            name: sleeves[name].weigh(pair.traded, pair.signal, self._feed.too_old(pair.traded))
            for name, pair in pairs.items()
        }
        closes = self._account.conclude(sleeves, weighed, due)
        self._snapshots |= dict.fromkeys(due, time.monotonic())
        milliseconds = 1e3 * (time.perf_counter() - began)
        for name, close in closes.items():
            self._desk.closed(close)
            self._shadows.hear(close, sleeves[name], self._feed.vix)
            self._durations.add(milliseconds)
            self._watch.timed(name, milliseconds / 1e3)
            self._log.info(
                "close",
                extra={
                    "session": self._session,
                    "agent": name,
                    "bar_time": close.time,
                    "version": close.model_version,
                    "action": close.action,
                    "equity": float(close.after.equity[0]),
                    "order_ref": close.ticket.order_ref if close.ticket else "",
                    "milliseconds": round(milliseconds, 3),
                },
            )

    def _swap(self, moved: AliasMoved) -> None:
        """Let another model version take over the sleeve; its books stay."""
        sleeve = self._seats[moved.agent].sleeve
        try:
            sleeve.trader = self._desk.trader(
                moved.agent,
                moved.published.version,
                moved.bundle,
                sleeve.signal,
                sleeve.traded,
                self._feed.vix,
            )
        except RatchetError as error:
            detail = f"version {moved.published.version}: {error}"
            self._event(moved.agent, "alias refused", detail)
            return
        newest = sleeve.traded.newest
        note_alias(self._ledger, self._session, moved.agent, moved.published, moved.bundle, newest)
        self._log.info(
            "alias moved", extra={"agent": moved.agent, "version": moved.published.version}
        )

    def _account_event(self, kind: str, detail: str) -> None:
        """Write down what concerns the whole account."""
        event = rows.RiskEvent(
            session=self._session, agent="", bar_time=None, kind=kind, detail=detail
        )
        with self._ledger.transaction():
            self._ledger.add(event)
        self._log.warning(kind, extra={"detail": detail})

    def _event(self, agent: str, kind: str, detail: str) -> None:
        newest = self._seats[agent].sleeve.traded.newest
        event = rows.RiskEvent(
            session=self._session, agent=agent, bar_time=newest, kind=kind, detail=detail
        )
        with self._ledger.transaction():
            self._ledger.add(event)
        ids = {"session": self._session, "agent": agent, "bar_time": newest}
        self._log.warning(kind, extra={**ids, "detail": detail})

    def _feed_ended(self, message: FeedEnded) -> bool:
        """Close the session; return whether the worker is done as well."""
        if message.error is not None:
            raise message.error
        self._hear()
        self._shadows.drain(self._ledger, self._beat)
        self._ended = True
        self._end("closed", "the feed has no more bars")
        return not self._stay

    def _end(self, kind: str, detail: str) -> None:
        """Note the end of this process's work, with every sleeve's books."""
        with self._ledger.transaction():
            for seat in self._seats.values():
                sleeve = seat.sleeve
                if sleeve.last is not None:
                    sleeve.keep_snapshot(sleeve.state, sleeve.last.time)
            self._ledger.add(session_event(self._session, kind, detail))
        self._log.info(kind, extra={"session": self._session, "reason": detail})
        self._show("closed" if kind == "closed" else "stopped", at_once=True)

    def _fail(self, error: BaseException) -> None:
        """Note why the worker ends; where even that is impossible, the error itself says why."""
        self._log.error("failed", extra={"reason": f"{type(error).__name__}: {error}"})
        self._watch.notice("failed", f"{type(error).__name__}: {error}")
        if isinstance(error, Fenced):
            return  # the ledger has another writer now
        try:
            self._end("stopped", f"{type(error).__name__}: {error}")
        except StorageError as problem:
            self._log.error("end not recorded", extra={"reason": str(problem)})

    def _show(self, phase: status.Phase, at_once: bool = False) -> None:
        """Write the status, twice a second at most."""
        if not at_once and time.monotonic() - self._shown < STATUS_SECONDS:
            return
        self._shown = time.monotonic()
        open_alerts = self._watch.open.newest_first()
        pids, ready = self._desk.processes, self._desk.ready
        shown = status.Status(
            phase=phase,
            pid=os.getpid(),
            session=self._session,
            feed=self._feed.name,
            broker=self._broker.name,
            updated_at=self._now().isoformat(),
            agents={
                name: status.of_sleeve(seat.sleeve, pids.get(name), ready is None or name in ready)
                for name, seat in self._seats.items()
            },
            links=status.links_of(open_alerts),
            alerts=[alert.to_json() for alert in open_alerts],
            metrics=self._watch.address,
        )
        try:
            status.write(self._home, shown)
        except StorageError as error:  # trading does not depend on being looked at
            self._log.warning("no status", extra={"reason": str(error)})


def _registry_shelf(home: Home) -> Shelf:
    """The registry is imported by those who use it: a worker with a shelf of its own need not."""
    from serving.shelf import RegistryShelf

    return RegistryShelf(home)
