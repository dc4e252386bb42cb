"""The watch: sees what the ledger is told, beside the trading, for metrics and alerts.

Owns the thread between the trading loop and whoever looks on. The loop only puts rows on a bounded
queue, after they are durable; it never waits, and nothing that fails here reaches it. Decides
nothing about trading.
"""

import logging
import os
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Thread
from typing import Any

from core import settings
from core.home import Home
from core.masking import confidential, masked
from serving.alerts import Alert, OpenAlerts, alert_of, notice, open_after, worth_sending
from serving.channels import Channels, Sender
from serving.ledger import Ledger, rows
from serving.logs import NAME
from serving.metrics import Meters, Page, port_of
from serving.pacing import Pacing

ROWS_AT_MOST = 20_000  # waiting
LOOK_SECONDS = 0.5  # at least so often at what time alone brings about


@dataclass(frozen=True, slots=True)
class _Timed:
    agent: str
    seconds: float  # from bar to order


@dataclass(frozen=True, slots=True)
class _Noticed:
    kind: str
    detail: str
    agent: str


class Watch:
    """Metrics and alerts of one worker; every method may be called from any thread."""

    def __init__(
        self,
        wanted: settings.Alerts,
        meters: Meters,
        channels: Channels | None = None,
        port: int | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``port`` of the page of metrics: 0 any free one, None no page."""
        self._wanted = wanted
        self._meters = meters
        self._port = port
        self._now = now
        self._clock = clock
        self._log = logging.getLogger(NAME)
        self._queue: queue.Queue[Any] = queue.Queue(ROWS_AT_MOST)
        self._pacing = Pacing(wanted.quiet_seconds, wanted.repeat_seconds)
        self._sender = Sender(channels, self._outcome) if channels else None
        self._steps: dict[str, int] = {}  # drawdown steps a sleeve is below, by agent
        self._beaten: float | None = None  # clock, at the loop's last sign of life
        self._thread = Thread(target=self._run, name="watch", daemon=True)
        self._page: Page | None = None
        self.open = OpenAlerts.none()

    @property
    def address(self) -> str:
        """Return where the metrics are, empty where they are not."""
        return self._page.address if self._page else ""

    def start(self) -> None:
        """Begin to watch. A port that is taken is a warning: trading goes on without the page."""
        if self._port is not None:
            try:
                self._page = Page(self._meters, self._port)
            except OSError as error:
                detail = f"port {self._port}: {error.strerror}; another in RATCHET_METRICS_PORT"
                self._log.warning("no metrics page", extra={"reason": detail})
        if self._sender:
            self._sender.start()
        self._thread.start()

    def stop(self) -> None:
        """Take in what is there, send what is due, and end."""
        self._beaten = None
        with suppress(queue.Full):
            self._queue.put(None, timeout=1.0)
        self._thread.join(timeout=5.0)
        if self._sender:
            self._sender.close()
        if self._page:
            self._page.close()

    def see(self, row: rows.Row) -> None:
        """Take note of a row that is durable now."""
        self._put(row)

    def recall(self, events: Iterable[rows.RiskEvent]) -> None:
        """Take up, unsaid, what an earlier process of the session left open and still holds."""
        told = (alert_of(event, event.bar_time or self._now()) for event in events)
        lasting = (one for one in told if one and one.event in ("risk_state", "kill_switch"))
        self.open = open_after(lasting)

    def timed(self, agent: str, seconds: float) -> None:
        """Take note of how long a bar took to its order."""
        self._put(_Timed(agent, seconds))

    def notice(self, kind: str, detail: str, agent: str = "") -> None:
        """Take note of an event that is in no ledger."""
        self._put(_Noticed(kind, detail, agent))

    def beat(self) -> None:
        """The trading loop lives."""
        self._beaten = self._clock()

    def change(self, wanted: settings.Alerts) -> None:
        """Tell by other settings from now on."""
        self._wanted = wanted
        self._pacing.quiet_seconds = wanted.quiet_seconds
        self._pacing.repeat_seconds = wanted.repeat_seconds

    def _put(self, item: Any) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._meters.dropped.inc()

    def _run(self) -> None:
        while True:
            wait = min(self._pacing.seconds_to_next(self._clock()), LOOK_SECONDS)
            item: Any = ()
            with suppress(queue.Empty):
                item = self._queue.get(timeout=max(wait, 0.01))
            try:
                if item is not None and item != ():
                    self._take(item)
                self._look()
            except Exception as error:  # noqa: BLE001 - whoever looks on never dies of it
                self._log.error("watch", extra={"reason": f"{type(error).__name__}: {error}"})
            if item is None:
                return

    def _take(self, item: Any) -> None:
        if isinstance(item, _Timed):
            self._meters.latency(item.agent, item.seconds)
            self._judge_latency(item)
        elif isinstance(item, _Noticed):
            self._meters.event(item.agent, item.kind)
            detail = masked(item.detail, confidential(os.environ))
            self._tell(notice(item.kind, detail, self._now(), item.agent))
        else:
            self._write(item)
            self._meters.see(item)
            self._tell(alert_of(item, self._now()))
            if isinstance(item, rows.Equity):
                self._judge_drawdown(item)
            elif isinstance(item, rows.Decision) and item.score == item.score:
                self._answered(item)

    def _write(self, row: rows.Row) -> None:
        """Log what became of an order, with the ids that join it to its decision."""
        if isinstance(row, rows.Intent | rows.OrderStatus | rows.Fill):
            word = {"intents": "intent", "orders": "order", "fills": "fill"}[row.TABLE]
            self._log.info(word, extra=rows.plain(row))

    def _look(self) -> None:
        """See to what time alone brings about."""
        now, key = self._clock(), ("stalled", "")
        beaten = self._beaten
        silence = now - beaten if beaten is not None else 0.0
        self._meters.silence.set(silence)
        if beaten is None:
            pass  # a watchdog has no such loop: what it says of its gateway is its own to end
        elif silence > self._wanted.stall_seconds and key not in self.open.by_key:
            detail = f"the trading loop has given no sign of life for {silence:.0f} s"
            self._tell(self._alert("stalled", "critical", "gateway", "", detail, lasts=True))
        elif silence <= self._wanted.stall_seconds and key in self.open.by_key:
            detail = "the trading loop is alive again"
            self._tell(self._alert("stalled", "info", "gateway", "", detail, ends=True))
        for alert in self._pacing.due(now):
            self._send(alert)

    def _judge_latency(self, timed: _Timed) -> None:
        milliseconds = 1e3 * timed.seconds
        if milliseconds > self._wanted.latency_ms:
            detail = f"{milliseconds:.0f} ms from bar to order, limit {self._wanted.latency_ms:g}"
            self._tell(self._alert("latency", "warning", "gateway", timed.agent, detail))

    def _judge_drawdown(self, book: rows.Equity) -> None:
        """Tell of each step of `drawdown_steps` a sleeve falls through, and when it is out."""
        below = [step for step in sorted(self._wanted.drawdown_steps) if book.drawdown >= step]
        before, self._steps[book.agent] = self._steps.get(book.agent, 0), len(below)
        if len(below) > before:
            detail = f"{book.drawdown:.1%} below the peak, equity {book.equity:,.2f}"
            level = "critical" if len(below) == len(self._wanted.drawdown_steps) else "warning"
            self._tell(self._alert("drawdown", level, "risk", book.agent, detail, lasts=True))
        elif before and not below:
            detail = f"{book.drawdown:.1%} below the peak, equity {book.equity:,.2f}"
            self._tell(self._alert("drawdown", "info", "risk", book.agent, detail, ends=True))

    def _answered(self, decision: rows.Decision) -> None:
        """An agent that decides is stalled no more."""
        open_one = self.open.by_key.get(("stalled", decision.agent))
        if open_one is not None and open_one.level != "critical":
            detail = f"decided at {decision.bar_time.isoformat()}"
            self._tell(self._alert("stalled", "info", "agent", decision.agent, detail, ends=True))

    def _alert(
        self,
        event: str,
        level: Any,
        component: str,
        agent: str,
        detail: str,
        lasts: bool = False,
        ends: bool = False,
    ) -> Alert:
        return Alert(event, level, component, agent, self._now(), detail, lasts, ends)

    def _tell(self, alert: Alert | None) -> None:
        if alert is None:
            return
        self.open = self.open.after(alert)
        if worth_sending(alert, getattr(self._wanted, alert.event)):
            sent = self._pacing.admit(alert, self._clock())
            if sent is None:
                self._meters.alert(alert.event, "held back")
            else:
                self._send(sent)

    def _send(self, alert: Alert) -> None:
        self._log.warning("alert", extra={"alert": alert.to_json()})
        if self._sender:
            self._sender.send(alert)
        else:
            self._meters.alert(alert.event, "no channel")

    def _outcome(self, outcome: str, alert: Alert, reason: str) -> None:
        self._meters.alert(alert.event, outcome)
        if outcome != "sent":
            self._log.error(f"alert {outcome}", extra={"event": alert.event, "reason": reason})


@contextmanager
def watching(watch: Watch, ledger: Ledger) -> Iterator[None]:
    """Let ``watch`` see what ``ledger`` is told while the block runs."""
    watch.start()
    ledger.listen(watch.see)
    try:
        yield
    finally:
        watch.stop()


def watch_of(
    home: Home,
    wanted: settings.Alerts,
    agents: Iterable[str],
    environment: Mapping[str, str] = os.environ,
) -> Watch:
    """Return the watch this home and its environment ask for; raise ``ConfigError``."""
    return Watch(wanted, Meters(agents), Channels.of(home, environment), port_of(environment))
