"""The flow ``monitor``: newest features against the Production model's own training window.

Owns what follows an alarm: a retraining, as a run of its own where the deployments are served,
else at once. Whether there is drift is for ``pipelines.monitor`` to say.
"""

from datetime import UTC, datetime
from typing import cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.logging import get_run_logger
from prefect.runtime import deployment

from core.home import Home
from core.masking import discreetly
from core.settings import load_params
from flows import announce, reports
from flows.progress import RunProgress, heard_by, slug
from flows.retraining import retrain


@flow(
    name="monitor",
    flow_run_name="monitor-{agent}",
    on_failure=[announce.failed],
    on_crashed=[announce.failed],
)
@discreetly
def monitor(agent: str, retrain_on_drift: bool = True, size: str = "default") -> bool:
    """Look for drift and retrain the agent when there is.

    Args:
        agent: An entry under `agents:` in params.yaml.
        retrain_on_drift: Off: report only.
        size: Of the retraining: an entry under `search.sizes` in params.yaml.
    """
    from pipelines import monitor as stage

    home = Home.from_environment()
    params = load_params(home.params_file)
    seen = stage.run(
        home,
        params,
        agent,
        now=datetime.now(UTC),
        report=heard_by(RunProgress(key=f"monitor-{agent}")),
    )
    create_markdown_artifact(
        reports.monitored_markdown(seen),
        key=slug(f"monitor-{agent}"),
        description=f"{agent}: {'drift' if seen.drift else 'no drift'}",
    )
    if seen.drift:
        announce.drift(home, params, agent, seen.reasons)
    if seen.drift and retrain_on_drift:
        _retrain(agent, size, reason=f"drift: {'; '.join(seen.reasons)}")
    return bool(seen.drift)


def _retrain(agent: str, size: str, reason: str) -> None:
    if deployment.id is None:
        retrain(agent, size=size, reason=reason)
        return
    # Not waited for: it takes its own place in the queue, and this run is done.
    run = run_deployment(
        f"retrain/retrain-{agent}",
        parameters={"agent": agent, "size": size, "reason": reason},
        timeout=0,
        as_subflow=False,
    )
    get_run_logger().info("drift: started the run %s of retrain-%s", cast(FlowRun, run).name, agent)
