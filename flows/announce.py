"""What is said when a flow run ends badly.

Owns the hook every flow carries. For now it speaks to the log, one line with what is needed to
find the cause; further channels are added here and nowhere else.
"""

import logging
from typing import Any

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
