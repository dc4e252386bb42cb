"""The flow ``rollback``: the version before Production becomes Production again, by one click."""

from datetime import UTC, datetime

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from core.home import Home
from core.masking import discreetly
from core.settings import load_params
from flows import announce
from flows.progress import slug


@flow(
    name="rollback",
    flow_run_name="rollback-{agent}",
    on_failure=[announce.failed],
    on_crashed=[announce.failed],
)
@discreetly
def rollback(agent: str, by: str = "Prefect UI", reason: str = "by hand") -> str:
    """Make the version before Production again; a running worker follows within a second.

    Args:
        agent: An entry under `agents:` in params.yaml.
        by: Who wants it; recorded.
        reason: Why; recorded.
    """
    from registry import promotion

    home = Home.from_environment()
    load_params(home.params_file).agent(agent)
    change = promotion.rollback(home, agent, by, reason, datetime.now(UTC))
    create_markdown_artifact(str(change), key=slug(f"rollback-{agent}"), description=agent)
    return str(change)
