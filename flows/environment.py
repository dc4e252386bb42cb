"""The environment a home gives to Prefect, set before Prefect is imported.

Owns which folder, database and server Prefect uses for a home, so that two homes on one machine
never meet. What the user set wins. Knows nothing of flows.
"""

import os
from collections.abc import Mapping

from core import telemetry
from core.home import Home

LEASES_ON_DISK = "prefect.server.concurrency.lease_storage.filesystem"


def prefect_environment(home: Home, api_url: str) -> dict[str, str]:
    """Return Prefect's settings for ``home`` with the server at ``api_url``."""
    database = home.prefect / "prefect.db"
    return {
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_API_URL": api_url,
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        # The page in the browser asks this address; the default knows nothing of our port.
        "PREFECT_SERVER_UI_API_URL": api_url,
        # Slots of dead runs are freed by expiring leases; leases in memory die with the server
        # and would leave their slots taken for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES_ON_DISK,
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # never a hidden second server
        "PREFECT_CLI_PROMPT": "false",
    }


def enter(home: Home, api_url: str, quiet: bool) -> None:
    """Point this process, and its children, at the Prefect server of ``home``.

    ``quiet`` keeps Prefect's log off the terminal; the server stores it all the same.
    """
    telemetry.switch_off()
    for name, value in prefect_environment(home, api_url).items():
        os.environ.setdefault(name, value)
    if quiet:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def child_environment(home: Home, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child that serves ``home``: ours, the home's name, ``extra``."""
    telemetry.switch_off()
    return {**os.environ, "RATCHET_HOME": str(home.root), **extra}
