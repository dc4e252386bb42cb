"""A Prefect server to run flows on: the one that is up, else a private one for this command."""

import contextlib
from collections.abc import Iterator

from core.home import Home
from flows import environment, servers


@contextlib.contextmanager
def prefect_for(home: Home) -> Iterator[str]:
    """Yield the API address of a healthy Prefect server and point this process at it.

    Import flows inside the block only: Prefect reads its settings when it is imported.
    """
    api = servers.running_prefect(home)
    if api is not None:
        environment.enter(home, api, quiet=True)
        yield api
        return
    server = servers.start_prefect(home, servers.free_port(), scheduler=False)
    with servers.stopping(server):
        server.wait_until_healthy()
        api = f"{server.note.url}/api"
        environment.enter(home, api, quiet=True)
        try:
            yield api
        finally:
            _hand_over_logs()


def _hand_over_logs() -> None:
    """Let Prefect send what it still holds before its server goes."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)
