"""Alerts: what of all that happens a person is told, in which words, how loudly.

Owns the translation from ledger rows to alerts, and which of them last until something ends them.
Pure: sends nothing, and knows neither addresses nor how often something may be said.
"""

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from serving.ledger import rows

Level = Literal["info", "warning", "critical"]
LEVELS: tuple[Level, ...] = ("info", "warning", "critical")
REPEATED = frozenset({"broker_lost", "stalled", "feed_stale"})  # told again while they last


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing to tell."""

    event: str  # a key of `alerts:` in params.yaml
    level: Level
    component: str  # where to look: broker link, agent, gateway, feed …
    agent: str  # empty: all of them
    time: datetime  # UTC
    detail: str  # what is needed to find the cause
    lasts: bool = False  # open until one with ``ends`` comes
    ends: bool = False
    session: int | None = None  # of the ledger
    bar_time: datetime | None = None
    since: datetime | None = None  # told again: when it began
    held_back: int = 0  # as many more of its kind that were not sent

    @property
    def key(self) -> tuple[str, str]:
        return self.event, self.agent

    @property
    def title(self) -> str:
        what = self.event.replace("_", " ")
        whom = f" {self.agent}" if self.agent else ""
        word = "over" if self.ends else self.level
        return f"Ratchet {word}: {what}{whom}"

    @property
    def text(self) -> str:
        """Everything that is known, one line each."""
        lines = [self.detail, f"time: {self.time.isoformat(timespec='seconds')}"]
        lines.append(f"event: {self.event} ({self.level})")
        lines.append(f"component: {self.component} on {socket.gethostname()}")
        if self.agent:
            lines.append(f"agent: {self.agent}")
        if self.session is not None:
            lines.append(f"session: {self.session}")
        if self.bar_time is not None:
            lines.append(f"bar: {self.bar_time.isoformat()}")
        if self.since is not None:
            lines.append(f"lasts since: {self.since.isoformat(timespec='seconds')}")
        if self.held_back:
            lines.append(f"and {self.held_back} more of this kind since the last message")
        lines.append("look: ratchet status; ratchet ledger events --last 20; logs/worker.jsonl")
        return "\n".join(lines)

    def to_json(self) -> dict[str, str | int | None]:
        """Return it as plain data, for status and programs."""
        return {
            "event": self.event,
            "level": self.level,
            "component": self.component,
            "agent": self.agent,
            "time": self.time.isoformat(),
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class Kind:
    """What a ledger event of one kind means to a person."""

    event: str
    level: Level
    component: str
    lasts: bool = False
    ends: bool = False


KILLED, RELEASED = "kill switch", "kill switch released"
# What happens in the normal course of trading: in ledger and metrics, and nobody is told.
ROUTINE = frozenset(
    {"bar skipped", "partial fill", "order cut", "stop", "target", "risk", "paused", "resumed"}
    | {"let go"}
    | {"account"}  # which one the session is bound to
    | {"stopped"}  # a sleeve, by what is told in its own words
)
KINDS: Mapping[str, Kind] = {
    "link down": Kind("broker_lost", "critical", "broker link", lasts=True),
    "link up": Kind("broker_lost", "info", "broker link", ends=True),
    "order refused": Kind("order_refused", "warning", "broker"),
    "order too late": Kind("order_refused", "warning", "broker"),
    "order waits": Kind("order_refused", "warning", "broker"),
    "order left over": Kind("account", "warning", "broker"),
    "exit gone": Kind("order_refused", "warning", "broker"),
    "order overtaken": Kind("order_refused", "info", "broker"),
    "foreign order": Kind("account", "info", "broker"),
    "foreign position": Kind("account", "warning", "broker"),
    "agent stopped": Kind("stalled", "critical", "gateway", lasts=True),
    "agent hangs": Kind("stalled", "warning", "agent", lasts=True),
    "agent died": Kind("stalled", "warning", "agent", lasts=True),
    "agent absent": Kind("stalled", "warning", "agent", lasts=True),
    "policy failed": Kind("stalled", "warning", "agent", lasts=True),
    "signal refused": Kind("signal_refused", "warning", "agent"),
    "alias": Kind("model", "info", "registry"),
    "alias refused": Kind("model", "warning", "registry"),
    "shadow": Kind("model", "info", "shadow"),
    "shadow off": Kind("model", "warning", "shadow"),
    "feed stale": Kind("feed_stale", "warning", "feed", lasts=True),
    "stale bar": Kind("feed_stale", "warning", "feed"),
    "feed back": Kind("feed_stale", "info", "feed", ends=True),
    KILLED: Kind("kill_switch", "critical", "gateway", lasts=True),
    RELEASED: Kind("kill_switch", "warning", "gateway", ends=True),
    "settings": Kind("settings", "info", "gateway"),
    "settings refused": Kind("settings", "warning", "gateway"),
    "account clip": Kind("clip", "info", "risk"),
    "failed": Kind("failure", "critical", "worker"),
    "gateway died": Kind("stalled", "critical", "watchdog", lasts=True),
    "gateway hangs": Kind("stalled", "critical", "watchdog", lasts=True),
    "gateway fenced": Kind("failure", "critical", "watchdog"),
    "gateway runs": Kind("stalled", "info", "watchdog", ends=True),
    "orders in doubt": Kind("failure", "critical", "watchdog"),
    "watchdog gave up": Kind("failure", "critical", "watchdog"),
}
UNKNOWN = Kind("other", "warning", "worker")


def kind_of(name: str, detail: str) -> Kind | None:
    """Return what an event of the ledger means; None: nothing to tell."""
    if name in ROUTINE:
        return None
    if name == "risk state":  # "ACTIVE -> HALTED at a drawdown of …"
        now = detail.partition("-> ")[2].partition(" ")[0]
        if now == "ACTIVE":
            return Kind("risk_state", "info", "risk", ends=True)
        return Kind("risk_state", "critical" if now == "HALTED" else "warning", "risk", lasts=True)
    return KINDS.get(name, UNKNOWN)


def alert_of(row: rows.Row, now: datetime) -> Alert | None:
    """Return what a row of the ledger tells a person, if anything."""
    if isinstance(row, rows.AliasChange):
        if not row.previous_version:
            return None
        detail = f"{row.alias} is version {row.model_version}, was {row.previous_version}"
        return _alert("alias", detail, row.agent, now, row.session, row.bar_time)
    if isinstance(row, rows.RiskEvent):
        return _alert(row.kind, row.detail, row.agent, now, row.session, row.bar_time)
    return None


def notice(kind: str, detail: str, now: datetime, agent: str = "") -> Alert | None:
    """Return the alert of something that is in no ledger row."""
    return _alert(kind, detail, agent, now, None, None)


def _alert(
    kind: str,
    detail: str,
    agent: str,
    now: datetime,
    session: int | None,
    bar_time: datetime | None,
) -> Alert | None:
    means = kind_of(kind, detail)
    if means is None:
        return None
    return Alert(
        event=means.event,
        level=means.level,
        component=means.component,
        agent=agent,
        time=now,
        detail=f"{kind}: {detail}" if detail else kind,
        lasts=means.lasts,
        ends=means.ends,
        session=session,
        bar_time=bar_time,
    )


@dataclass(frozen=True, slots=True)
class OpenAlerts:
    """Which alerts last; a new object for every change, so that any thread may look."""

    by_key: Mapping[tuple[str, str], Alert]

    @classmethod
    def none(cls) -> "OpenAlerts":
        return cls({})

    def after(self, alert: Alert) -> "OpenAlerts":
        """Return what is open once ``alert`` is known."""
        if alert.ends:
            return OpenAlerts({k: one for k, one in self.by_key.items() if k != alert.key})
        if not alert.lasts:
            return self
        before = self.by_key.get(alert.key)
        since = before.since if before else alert.time
        return OpenAlerts({**self.by_key, alert.key: replace(alert, since=since)})

    def newest_first(self) -> list[Alert]:
        return sorted(self.by_key.values(), key=lambda one: one.time, reverse=True)


def worth_sending(alert: Alert, least: str) -> bool:
    """Say whether a level reaches the least one asked for; the end of an alert goes with it."""
    if least == "off":
        return False
    return alert.ends or LEVELS.index(alert.level) >= [*LEVELS].index(_level(least))


def _level(text: str) -> Level:
    return next(level for level in LEVELS if level == text)


def open_after(told: Iterable[Alert]) -> OpenAlerts:
    """Return what is open after some alerts, oldest first."""
    found = OpenAlerts.none()
    for alert in told:
        found = found.after(alert)
    return found
