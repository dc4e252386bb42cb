"""Usage statistics of the libraries below us: off, unless the user turned them on.

Owns the list of switches. Must run before the libraries load, so it imports none of them.
"""

import os
from collections.abc import MutableMapping

_OFF = {
    "DO_NOT_TRACK": "1",  # Prefect's client, Evidently
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
}


def switch_off(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set every switch that the user has not set; child processes inherit them."""
    for name, value in _OFF.items():
        environment.setdefault(name, value)
