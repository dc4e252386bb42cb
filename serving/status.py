"""Status: what the worker is doing, in a file beside the ledger.

Owns ``worker.json`` of a home: written whole by the worker about twice a second, read by anybody.
A worker that was killed is told from one that stopped by the lock, not by the file.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.errors import CorruptFile, StorageError
from core.home import Home
from serving.alerts import Alert
from serving.closing import RISK_STATES
from serving.lock import lock_holder
from serving.sleeve import Sleeve

Phase = Literal["never started", "starting", "running", "waiting", "stopped", "closed", "died"]


@dataclass(frozen=True, slots=True)
class SleeveStatus:
    """How one agent stands."""

    model_version: str
    bar_time: str | None  # ISO 8601, of the newest decision
    equity: float  # account currency
    drawdown: float  # fraction
    shares: float
    pending_shares: float
    risk_state: str
    action: str
    confidence: float
    rationale: str
    paused: bool
    symbol: str = ""
    exposure: float = 0.0  # value of the shares / equity
    pid: int | None = None  # of the agent's own process; None: it decides in the worker's
    answers: bool = True  # whether its process is there and answers in time


@dataclass(frozen=True, slots=True)
class Status:
    """How the worker stands."""

    phase: Phase
    pid: int | None = None
    session: int | None = None
    feed: str = ""
    broker: str = ""
    updated_at: str | None = None  # ISO 8601 UTC
    agents: Mapping[str, SleeveStatus] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)  # broker, feed: "up", or what is wrong
    alerts: Sequence[Mapping[str, Any]] = ()  # open ones, newest first
    metrics: str = ""  # where Prometheus finds them

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def of_sleeve(sleeve: Sleeve, pid: int | None = None, answers: bool = True) -> SleeveStatus:
    """Return how a sleeve stands after its newest close, and the process that decides for it."""
    state, close = sleeve.state, sleeve.last
    return SleeveStatus(
        model_version=sleeve.trader.version,
        bar_time=close.time.isoformat() if close else None,
        equity=float(state.equity[0]),
        drawdown=float(state.drawdown[0]),
        shares=float(state.shares[0, 0]),
        pending_shares=float(state.pending_shares[0, 0]),
        risk_state=RISK_STATES[int(state.risk_state[0])],
        action=close.action if close else "",
        confidence=close.answer.confidence if close else 0.0,
        rationale=close.words if close else "",
        paused=sleeve.paused,
        symbol=sleeve.traded.instrument.symbol,
        exposure=_exposure(sleeve),
        pid=pid,
        answers=answers,
    )


def _exposure(sleeve: Sleeve) -> float:
    if sleeve.last is None or not float(sleeve.state.equity[0]):
        return 0.0
    value = float(sleeve.state.shares[0, 0]) * float(sleeve.last.bar.close[0])
    return value / float(sleeve.state.equity[0])


def links_of(alerts: Iterable[Alert]) -> dict[str, str]:
    """Return how the links stand by what is open: up, or since when down and why."""
    found = {"broker": "up", "feed": "up"}
    for alert in alerts:
        link = {"broker_lost": "broker", "feed_stale": "feed"}.get(alert.event)
        if link:
            since = alert.since or alert.time
            found[link] = f"down since {since.isoformat(timespec='seconds')}: {alert.detail}"
    return found


def path_of(home: Home) -> Path:
    return home.root / "worker.json"


def write(home: Home, status: Status) -> None:
    """Replace the file in one step; readers see the old or the new."""
    path = path_of(home)
    draft = path.with_suffix(".json.new")
    try:
        draft.write_text(json.dumps(status.to_json(), indent=1), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: the status cannot be written ({error})") from error


def read(home: Home) -> Status:
    """Return the newest status; a worker that holds no lock any more has died or stopped."""
    path = path_of(home)
    if not path.exists():
        return Status("never started")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        agents = {name: SleeveStatus(**one) for name, one in content.pop("agents").items()}
        status = Status(**content, agents=agents)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptFile(f"{path}: not a status ({error}); delete it") from error
    if status.phase in ("stopped", "closed") or lock_holder(home) == status.pid:
        return status
    return Status(**{**{k: getattr(status, k) for k in Status.__slots__}, "phase": "died"})
