"""``ratchet status``: what runs, who is Production, how each sleeve stands.

Owns the picture that others' words are put together to.
"""

from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table

from core.errors import RatchetError
from core.home import Home
from core.settings import Params
from flows import reports, servers, slot
from serving import status as worker


def of(home: Home, params: Params) -> dict[str, Any]:
    """Return everything as plain data; what cannot be reached says so in place of its value."""
    return {
        "home": str(home.root),
        "services": {name: note.url for name, note in servers.noted(home).items()},
        "worker": asdict(worker.read(home)),
        "agents": {
            name: {
                "symbol": agent.symbol,
                "versions": _aliases(home, name),
                "retraining": slot.is_taken(home, name),
            }
            for name, agent in params.agents.items()
        },
    }


def tables(found: dict[str, Any]) -> Group:
    """Return ``of``'s picture for a terminal."""
    services = Table(box=None, pad_edge=False)
    for head in ("service", "where"):
        services.add_column(head)
    for name in ("prefect", "mlflow"):
        services.add_row(name, found["services"].get(name, "not running (ratchet up)"))
    now = found["worker"]
    since = f", {now['feed']}, session {now['session']}" if now["session"] else ""
    services.add_row("worker", f"{now['phase']}{since}")
    services.add_row("state", found["home"])

    agents = Table(box=None, pad_edge=False)
    for head in ("agent", "symbol", "versions", "equity", "drawdown", "risk", "last decision"):
        agents.add_column(head, overflow="fold")
    for name, agent in found["agents"].items():
        sleeve = now["agents"].get(name)
        versions = agent["versions"]
        held = (
            versions
            if isinstance(versions, str)
            else ", ".join(f"{alias} {number}" for alias, number in versions.items()) or "none yet"
        )
        busy = " (retraining)" if agent["retraining"] else ""
        books = (
            (
                f"{sleeve['equity']:,.0f}",
                reports.percent(-sleeve["drawdown"]),
                sleeve["risk_state"],
                f"{sleeve['bar_time'] or ''} {sleeve['action']}: {sleeve['rationale']}",
            )
            if sleeve
            else ("–", "–", "–", "–")
        )
        agents.add_row(name, agent["symbol"], held + busy, *books)
    return Group(services, "", agents)


def _aliases(home: Home, agent: str) -> dict[str, int] | str:
    from registry import connection, models

    try:
        if not connection.exists(home):
            return {}  # and a look makes no database
        return {str(alias): number for alias, number in models.aliases(home, agent).items()}
    except RatchetError as error:
        return str(error)
