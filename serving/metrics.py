"""Metrics: the worker's numbers for Prometheus, on loopback.

Owns names and labels, and the page ``/metrics``, served by threads of its own. Counts what it is
told; knows nothing of trading.
"""

import os
from collections.abc import Iterable, Mapping
from threading import Thread
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.process_collector import ProcessCollector

from core.errors import ConfigError
from serving.ledger import rows

PORT, DEFAULT_PORT = "RATCHET_METRICS_PORT", 9464
LOOPBACK = "127.0.0.1"
RISK_STATES = {"ACTIVE": 0, "REDUCING": 1, "HALTED": 2}
STALLS = frozenset({"agent hangs", "agent died", "agent absent", "policy failed"})
SECONDS = (.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1.0, 2.0, 5.0)  # fmt: skip


class Meters:
    """Every number there is; tell it what happened."""

    def __init__(self, agents: Iterable[str] = ()) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice as many series else
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own: dict[str, Any] = {"registry": self.registry}
        each = ["agent"]
        self._equity = Gauge("ratchet_equity", "Account currency, at the newest close", each, **own)
        self._exposure = Gauge("ratchet_exposure", "Value held / equity", each, **own)
        self._drawdown = Gauge("ratchet_drawdown", "Fraction below the rolling peak", each, **own)
        self._risk = Gauge(
            "ratchet_risk_state", "0 ACTIVE, 1 REDUCING, 2 HALTED; of the sleeve", each, **own
        )
        self._version = Gauge("ratchet_model_version", "Version that decides", each, **own)
        self._bar_time = Gauge("ratchet_bar_time_seconds", "Newest close, Unix time", each, **own)
        self._decisions = Counter(
            "ratchet_decisions", "Decisions, by what was ordered", ["agent", "action"], **own
        )
        self._orders = Counter("ratchet_orders", "Orders intended", ["agent", "leg"], **own)
        self._fills = Counter("ratchet_fills", "Fills booked", ["agent", "leg"], **own)
        self._events = Counter("ratchet_events", "Events of the ledger", ["agent", "kind"], **own)
        self._stalls = Counter("ratchet_stalls", "An agent did not answer or died", each, **own)
        self._refused = Counter("ratchet_signals_refused", "Signals refused", each, **own)
        self._latency = Histogram(
            "ratchet_bar_to_order_seconds",
            "From the bar to its order on its way, ledger included",
            each,
            buckets=SECONDS,
            **own,
        )
        self._link = Gauge("ratchet_link_up", "1 up, 0 down", ["link"], **own)
        self._alerts = Counter("ratchet_alerts", "Alerts by outcome", ["event", "outcome"], **own)
        self.dropped = Counter("ratchet_watch_dropped", "Rows the watch had no room for", **own)
        self.silence = Gauge(
            "ratchet_loop_silence_seconds", "Since the trading loop's last sign of life", **own
        )
        for link in ("broker", "feed"):
            self._link.labels(link).set(1)
        for agent in agents:
            self._prepare(agent)  # a counter that is not there is no zero

    def see(self, row: rows.Row) -> None:
        """Count a row of the ledger."""
        if isinstance(row, rows.Equity):
            self._equity.labels(row.agent).set(row.equity)
            held = row.shares * row.close
            self._exposure.labels(row.agent).set(held / row.equity if row.equity else 0.0)
            self._drawdown.labels(row.agent).set(row.drawdown)
            self._risk.labels(row.agent).set(RISK_STATES.get(row.risk_state, -1))
            self._bar_time.labels(row.agent).set(row.bar_time.timestamp())
        elif isinstance(row, rows.Decision):
            self._decisions.labels(row.agent, row.action).inc()
        elif isinstance(row, rows.Intent):
            self._orders.labels(row.agent, row.leg.partition(".")[0]).inc()
        elif isinstance(row, rows.Fill):
            self._fills.labels(row.agent, row.leg.partition(".")[0]).inc()
        elif isinstance(row, rows.AliasChange):
            if row.model_version.isdecimal():
                self._version.labels(row.agent).set(int(row.model_version))
        elif isinstance(row, rows.RiskEvent):
            self.event(row.agent, row.kind)

    def event(self, agent: str, kind: str) -> None:
        """Count something out of the ordinary."""
        self._events.labels(agent, kind).inc()
        if kind in STALLS:
            self._stalls.labels(agent).inc()
        elif kind == "signal refused":
            self._refused.labels(agent).inc()
        elif kind in ("link down", "link up"):
            self._link.labels("broker").set(kind == "link up")
        elif kind in ("feed stale", "feed back"):
            self._link.labels("feed").set(kind == "feed back")

    def latency(self, agent: str, seconds: float) -> None:
        self._latency.labels(agent).observe(seconds)

    def alert(self, event: str, outcome: str) -> None:
        self._alerts.labels(event, outcome).inc()

    def _prepare(self, agent: str) -> None:
        for action in ("buy", "sell", "hold"):
            self._decisions.labels(agent, action)
        for counter in (self._orders, self._fills):
            counter.labels(agent, "entry")
        self._stalls.labels(agent)
        self._refused.labels(agent)
        self._latency.labels(agent)


class Page:
    """``/metrics`` on loopback, while it is open."""

    def __init__(self, meters: Meters, port: int) -> None:
        """``port`` 0 is any free one. Raises ``OSError`` where the port is taken."""
        self._server: Any
        self._thread: Thread
        self._server, self._thread = start_http_server(port, LOOPBACK, meters.registry)
        self.address = f"http://{LOOPBACK}:{self._server.server_port}/metrics"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5.0)


def port_of(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the port of the page, 0 for any free one, None where it is switched off."""
    named = environment.get(PORT, "")
    if named == "any":
        return 0
    if not named:
        return DEFAULT_PORT
    if not named.isdecimal() or int(named) > 65_535:
        raise ConfigError(f"{PORT}={named}: expected a port, `any` for a free one, or 0 for none")
    return int(named) or None
