"""What is said of flows: that one ended badly, what a gate decided, that there is drift.

Owns the hook every flow carries, and the way from a flow to the channels of ``serving.channels``;
further ones are added there. A message that cannot be delivered never harms a flow.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from core.errors import RatchetError
from core.home import Home
from core.settings import Params, load_params
from serving.alerts import Alert, Level, worth_sending
from serving.channels import Channels

logger = logging.getLogger("ratchet.flows")


def failed(flow: Any, flow_run: Any, state: Any) -> None:
    """Log that ``flow_run`` of ``flow`` failed or crashed, with its parameters and the reason."""
    logger.error(
        "flow %s, run %s (%s) ended %s: %s; parameters %s",
        flow.name,
        flow_run.name,
        flow_run.id,
        state.name,
        " ".join(str(state.message).split()),
        flow_run.parameters,
    )
    home = Home.from_environment()
    try:
        params = load_params(home.params_file)
    except RatchetError:
        return  # said above, and by whoever reads params.yaml
    agent = str(flow_run.parameters.get("agent", ""))
    detail = f"flow {flow.name}, run {flow_run.name} ({flow_run.id}) ended {state.name}"
    reason = " ".join(str(state.message).split())
    tell(home, params, "failure", "critical", f"flow {flow.name}", agent, f"{detail}: {reason}")


def gate(
    home: Home, params: Params, agent: str, version: object, verdict: str, reasons: Sequence[str]
) -> None:
    """Tell what the gate made of a candidate."""
    detail = f"version {version}: {verdict}; {'; '.join(reasons)}"
    tell(home, params, "gate", "info", "gate", agent, detail)


def drift(home: Home, params: Params, agent: str, reasons: Sequence[str]) -> None:
    """Tell that what an agent sees has moved away from what it learned on."""
    tell(home, params, "drift", "warning", "monitor", agent, "; ".join(reasons))


def tell(
    home: Home, params: Params, event: str, level: Level, component: str, agent: str, detail: str
) -> None:
    """Send one alert to every channel, if the event is one to tell; failures go to the log."""
    alert = Alert(event, level, component, agent, datetime.now(UTC), detail)
    if not worth_sending(alert, params.alerts.levels[event]):
        return
    try:
        channels = Channels.of(home)
        if channels is not None:
            channels.deliver(alert)
    except RatchetError as error:
        logger.error("%s", error)
