"""Steering: what a person asks of a gateway that runs, from another process.

Owns ``gateway.json`` of a home: where the gateway answers and the secret that opens it, readable by
its owner alone, there while the gateway runs. Knows nothing of how a request is carried out.
"""

import json
import os
import signal
import time
from typing import Literal

from core.errors import ConfigError, ExecutionError, NotAllowed, ServiceUnavailable
from core.home import Home
from serving.bus import ask_gateway
from serving.ledger import LedgerReader, rows
from serving.lock import lock_holder

Kind = Literal["pause", "resume"]
ANSWER_SECONDS = 10.0
ANSWERS = ("settings", "settings refused")  # events that say what became of a reload


def announce(home: Home, address: str, secret: str) -> None:
    """Say where the gateway of ``home`` answers."""
    home.make(home.root)
    draft = home.root / "gateway.json.new"
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"address": address, "secret": secret}, file)
    draft.replace(home.root / "gateway.json")


def withdraw(home: Home) -> None:
    (home.root / "gateway.json").unlink(missing_ok=True)


def steer(home: Home, kind: Kind, agent: str, by: str) -> str:
    """Pause or resume an agent from its next bar on; return what was done, in words.

    Raises ``NotAllowed`` where no gateway runs, ``ServiceUnavailable`` when it does not answer,
    ``ExecutionError`` when it refuses.
    """
    try:
        content = json.loads((home.root / "gateway.json").read_text(encoding="utf-8"))
        address, secret = content["address"], content["secret"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise NotAllowed(
            f"{home.root}: no gateway runs here that could {kind} {agent}; start one with "
            "`ratchet serve --processes`"
        ) from error
    request = {"kind": kind, "agent": agent, "by": by, "secret": secret}
    reply = ask_gateway(address, request, ANSWER_SECONDS)
    if "error" in reply:
        raise ExecutionError(f"{agent}: the gateway refused to {kind} it ({reply['error']})")
    return f"{agent}: {kind}d from its next bar on"


def reload(home: Home, seconds: float = ANSWER_SECONDS) -> str:
    """Let the worker of ``home`` read params.yaml again; return what it took over, in words.

    Raises ``NotAllowed`` where no worker runs, ``ConfigError`` where it refused the file,
    ``ServiceUnavailable`` when it says nothing in time.
    """
    pid = lock_holder(home)
    if pid is None:
        raise NotAllowed(f"{home.root}: no worker runs here; it reads params.yaml when it starts")
    before = _told(home)
    os.kill(pid, signal.SIGHUP)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if len(told := _told(home)) > len(before):
            kind, detail = told[len(before)]
            if kind == "settings refused":
                raise ConfigError(detail)
            return detail
        time.sleep(0.05)
    raise ServiceUnavailable(
        f"the worker (process {pid}) has not answered within {seconds:g} s; see "
        "`ratchet ledger events --last 5`"
    )


def _told(home: Home) -> list[tuple[str, str]]:
    """Return every answer so far, oldest first."""
    if not home.ledger.exists():
        return []
    with LedgerReader(home.ledger) as ledger:
        events = ledger.rows(rows.RiskEvent, agent="")
    return [(one.kind, one.detail) for one in events if one.kind in ANSWERS]
