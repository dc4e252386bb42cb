"""Runs that a killed Ratchet left behind in Prefect: ended before new ones are served.

A run whose process was killed together with its runner says *Running* until somebody looks. This
looks: whoever serves the deployments of a home is alone in it, so a run of theirs that is not
final, and whose process does not hold its agent's slot, is dead.
"""

import logging
from datetime import datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Crashed

from core.home import Home
from flows import slot

logger = logging.getLogger("ratchet.flows")

LATE = timedelta(minutes=5)
UNFINISHED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


def clear_dead_runs(home: Home, now: datetime) -> list[str]:
    """Mark dead runs Crashed, which frees their slots, and drop all but the newest missed ones.

    Returns the names of the runs that were ended.
    """
    with get_client(sync_client=True) as client:
        ended = []
        for deployment in client.read_deployments():
            ended += _end_dead(home, client, deployment.id)
            ended += _drop_missed(client, deployment.id, now)
    for name in ended:
        logger.warning("ended the run %s, which a stopped Ratchet left behind", name)
    return ended


def _end_dead(home: Home, client: SyncPrefectClient, deployment: UUID) -> list[str]:
    dead = [
        run
        for run in _runs(client, deployment, UNFINISHED)
        if not slot.is_taken(home, str(run.parameters.get("agent", "")))
    ]
    for run in dead:
        client.set_flow_run_state(run.id, Crashed(message="its process is gone"), force=True)
    return [run.name for run in dead]


def _drop_missed(client: SyncPrefectClient, deployment: UUID, now: datetime) -> list[str]:
    """Cancel late runs but the newest: a machine that slept a week catches up once, not daily."""
    late = [
        run
        for run in _runs(client, deployment, [StateType.SCHEDULED])
        if run.expected_start_time is not None and now - run.expected_start_time > LATE
    ]
    for run in late[1:]:
        message = "missed while Ratchet was not running; a newer run catches up"
        client.set_flow_run_state(run.id, Cancelled(message=message), force=True)
    return [run.name for run in late[1:]]


def _runs(client: SyncPrefectClient, deployment: UUID, states: list[StateType]) -> list[FlowRun]:
    """Return the runs of a deployment in these states, newest expected start first."""
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )
