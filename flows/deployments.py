"""Every deployment of a home, served by one Prefect runner: ``python -m flows.deployments``.

Owns names, schedules and limits. A deployment is called ``<flow>-<agent>``.
"""

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from core.home import Home
from core.masking import guard
from core.settings import Params, load_params
from flows.certifying import parity
from flows.feeds import scheduled_agents
from flows.ingesting import ingest
from flows.leftovers import clear_dead_runs
from flows.monitoring import monitor
from flows.retraining import retrain
from flows.rolling_back import rollback

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

EXCHANGE_TIME = "America/New_York"
AFTER_THE_SESSION = "30 17 * * mon-fri"  # vendors deliver the final daily bar by then
AFTER_THE_INGEST = "0 18 * * mon-fri"
WHEN_BARS_ARE_STORED = "15 18 * * mon-fri"
WEEKLY = "0 9 * * sat"
MONTHLY = "0 9 1 * *"
PARALLEL_RUNS = 4  # of the runner; retrainings of one agent queue behind each other anyway

ONE_AT_A_TIME = ConcurrencyLimitConfig(
    limit=1,
    collision_strategy=ConcurrencyLimitStrategy.ENQUEUE,
    # A run that died between taking its slot and starting holds it no longer than this.
    grace_period_seconds=60,
)


def every_deployment(params: Params) -> list["RunnerDeployment"]:
    """Return the deployments of all agents that are not for the demo only."""
    found = [
        _deployment(ingest, "all", [_at(AFTER_THE_SESSION, "session", True)], {}),
        _deployment(parity, "all", [_at(WHEN_BARS_ARE_STORED, "session", True)], {}),
    ]
    for name in scheduled_agents(params):
        agent = params.agent(name)
        schedules = [
            _at(WEEKLY, "weekly", agent.schedule == "weekly", {"reason": "weekly schedule"}),
            _at(MONTHLY, "monthly", agent.schedule == "monthly", {"reason": "monthly schedule"}),
        ]
        found += [
            _deployment(retrain, name, schedules, {"agent": name}),
            _deployment(monitor, name, [_at(AFTER_THE_INGEST, "session", True)], {"agent": name}),
            _deployment(rollback, name, [], {"agent": name}),
        ]
    return found


def _at(cron: str, slug: str, active: bool, parameters: dict[str, Any] | None = None) -> Schedule:
    return Cron(cron, timezone=EXCHANGE_TIME, slug=slug, active=active, parameters=parameters or {})


def _deployment(
    flow: Any, name: str, schedules: list[Schedule], parameters: dict[str, Any]
) -> "RunnerDeployment":
    made: RunnerDeployment = flow.to_deployment(
        name=f"{flow.name}-{name}",  # lists in the UI show this name first
        schedules=schedules,
        parameters=parameters,
        tags=[name],
        concurrency_limit=ONE_AT_A_TIME,
        # By module, not by file: a flow loaded from a file would run under its bare file name.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return made


def main() -> None:
    """Serve until stopped."""
    guard()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    home = Home.from_environment()
    clear_dead_runs(home, datetime.now(UTC))
    serve(*every_deployment(load_params(home.params_file)), limit=PARALLEL_RUNS)


if __name__ == "__main__":
    main()
