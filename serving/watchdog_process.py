"""The watchdog of a home as a process: its parts put together, and signals that end it.

Owns which command starts the gateway, and which broker the orders of a session lie with. In live
mode no gateway is started, not even once: that takes the account typed by a person, each time. One
that runs already is watched; when it dies or hangs its orders are seen to, and it stays stopped.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence

from core.errors import ExecutionError, NotAllowed
from core.home import PROJECT, Home
from core.settings import Params
from serving.brokers.paper import PaperBroker
from serving.brokers.port import Broker
from serving.channels import Channels
from serving.ledger import rows
from serving.lock import lock_holder, watchdog_lock
from serving.logs import logging_to
from serving.metrics import Meters
from serving.process import on_signals
from serving.watch import Watch
from serving.watchdog import Watchdog

SERVE = (sys.executable, "-m", "flows.cli", "serve")


def broker_of(session: rows.Session, environment: Mapping[str, str]) -> Broker:
    """Return the broker a session traded with; it is asked to cancel and to sell, no more."""
    if session.broker == "paper":
        return PaperBroker()
    from serving.brokers.ibkr import Access, IbkrBroker

    return IbkrBroker(Access.from_environment(environment))


def watch_over(
    home: Home,
    params: Params,
    arguments: Sequence[str],
    restart: bool = True,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Watch over the gateway of ``home`` until it ends as asked; return why there is no more to do.

    ``arguments`` are those of ``ratchet serve``. Raises ``ExecutionError`` where it is given up,
    ``NotAllowed`` in live mode where no gateway runs, and where another watchdog does.
    """
    live = environment.get("TRADING_MODE") == "live"
    if live and lock_holder(home) is None:
        raise NotAllowed(
            f"{home.root}: no gateway runs, and in live mode a watchdog starts none; start "
            "`ratchet serve --broker ibkr`, type the account, then start the watchdog beside it"
        )
    watch = Watch(params.alerts, Meters(), Channels.of(home, environment))
    with watchdog_lock(home), logging_to(home, "watchdog.jsonl"):
        path = os.pathsep.join(filter(None, [str(PROJECT), environment.get("PYTHONPATH", "")]))
        dog = Watchdog(
            home,
            params,
            (*SERVE, *arguments),
            lambda session: broker_of(session, environment),
            watch,
            {**environment, "RATCHET_HOME": str(home.root), "PYTHONPATH": path},
            restart=restart and not live,
        )

        def stop(name: str) -> None:
            dog.ended = dog.ended or f"{name}: the watchdog was asked to stop"

        watch.start()
        try:
            with on_signals({signal.SIGTERM: stop, signal.SIGINT: stop}):
                dog.run()
        finally:
            dog.close()
            watch.stop()
    if dog.gave_up:
        raise ExecutionError(
            f"{home.root}: gave up the gateway: {dog.ended}; see {home.logs / 'gateway.log'} and "
            "docs/runbook.md"
        )
    return dog.ended
