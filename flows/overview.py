"""``ratchet status``: what runs, who is Production, how each sleeve stands.

Owns the picture that others' words are put together to.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from core.errors import RatchetError
from core.home import Home
from core.settings import Params
from flows import reports, servers, shadowing, slot
from registry import glimpse
from serving import status as worker
from serving import switch
from serving.lock import lock_holder


def of(home: Home, params: Params) -> dict[str, Any]:
    """Return everything as plain data; what cannot be reached says so in place of its value."""
    return {
        "home": str(home.root),
        "services": {name: note.url for name, note in servers.noted(home).items()},
        "worker": asdict(worker.read(home)),
        "watchdog": lock_holder(home, "watchdog"),
        "kill_switch": press.words if (press := switch.pressed(home)) else "",
        "agents": {
            name: {
                "symbol": agent.symbol,
                "versions": _aliases(home, name),
                "retraining": slot.is_taken(home, name),
                "shadow": _shadow(home, name),
            }
            for name, agent in params.agents.items()
        },
    }


def tables(found: dict[str, Any]) -> Group:
    """Return ``of``'s picture for a terminal, in two columns: what, and how it stands."""
    now = found["worker"]
    services = _two_columns()
    services.add_row("worker", _worker(now))
    if found["kill_switch"]:
        services.add_row("KILLED", Text(f"{found['kill_switch']}; ratchet release ends it"))
    dog = found["watchdog"]
    services.add_row("watchdog", f"process {dog}" if dog else "not running (ratchet watchdog)")
    for link in ("broker", "feed"):
        if now["session"]:
            state = now["links"].get(link, "")
            services.add_row(link, Text(", ".join(part for part in (now[link], state) if part)))
    if now["metrics"]:
        services.add_row("metrics", now["metrics"])
    for name in ("prefect", "mlflow"):
        services.add_row(name, found["services"].get(name, "not running (ratchet up)"))
    services.add_row("state", found["home"])

    agents = _two_columns()
    for name, agent in found["agents"].items():
        for number, line in enumerate(_agent(agent, now["agents"].get(name))):
            agents.add_row("" if number else name, Text(line))
    return Group(services, "", agents, *_alerts(now["alerts"]))


def _two_columns() -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold", ratio=1)
    return table


def _worker(now: dict[str, Any]) -> str:
    words = [now["phase"]]
    if now["session"]:
        words += [f"session {now['session']}", f"process {now['pid']}"]
        words.append(f"seen {str(now['updated_at'])[:19]}Z")
    return ", ".join(words)


def _agent(agent: dict[str, Any], sleeve: dict[str, Any] | None) -> list[str]:
    """Return what there is to say of an agent, a line each."""
    versions = agent["versions"]
    held = (
        versions
        if isinstance(versions, str)
        else ", ".join(f"{alias} {number}" for alias, number in versions.items()) or "none yet"
    )
    busy = ", retraining" if agent["retraining"] else ""
    lines = [f"{agent['symbol']}: {held}{busy}", *filter(None, [agent.get("shadow")])]
    if sleeve is None:
        return lines
    process = ""
    if sleeve["pid"] is not None or not sleeve["answers"]:
        process = f"process {sleeve['pid']}" if sleeve["pid"] else "no process"
        process = f", {process}{'' if sleeve['answers'] else ', does not answer'}"
    paused = ", paused" if sleeve["paused"] else ""
    lines.append(
        f"{sleeve['risk_state']}, decides by version {sleeve['model_version']}{process}{paused}"
    )
    pending = f" ({sleeve['pending_shares']:+,.0f} ordered)" if sleeve["pending_shares"] else ""
    lines.append(
        f"equity {sleeve['equity']:,.2f}, {reports.percent(-sleeve['drawdown'])} from the peak; "
        f"{sleeve['shares']:,.0f} shares{pending}, {sleeve['exposure']:.0%} exposed"
    )
    if sleeve["bar_time"]:
        when, confidence = sleeve["bar_time"][:16], sleeve["confidence"]
        lines.append(
            f"{when} {sleeve['action']}, confidence {confidence:.2f}: {sleeve['rationale']}"
        )
    return lines


def _alerts(alerts: Sequence[dict[str, Any]]) -> list[Any]:
    if not alerts:
        return []
    table = _two_columns()
    for alert in alerts:
        whom = f" {alert['agent']}" if alert["agent"] else ""
        what = f"{alert['event'].replace('_', ' ')}{whom}, {alert['time'][:19]}Z"
        table.add_row(alert["level"], Text(f"{what}: {alert['detail']}"))
    return ["", "open alerts", table]


def _shadow(home: Home, agent: str) -> str:
    try:
        return shadowing.line(home, agent)
    except RatchetError as error:  # a ledger of an older schema, until the worker starts
        return str(error)


def _aliases(home: Home, agent: str) -> dict[str, int] | str:
    try:
        return glimpse.aliases(home, agent)
    except RatchetError as error:
        return str(error)
