"""Runs whose process is gone do not keep their agent's slot, nor pile up."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from flows_kit import Served

from core.home import Home
from core.settings import Agent, Params
from flows import slot

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

NOW = datetime.now(UTC)  # the server stamps the runs with its own clock


@pytest.fixture
def client(served: Served) -> Iterator["SyncPrefectClient"]:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: served.api}), get_client(sync_client=True) as opened:
        yield opened


@pytest.fixture
def deployment(client: "SyncPrefectClient") -> UUID:
    """Return a deployment of `retrain` that no runner serves: only the test moves its runs."""
    from flows.deployments import every_deployment

    params = Params(agents={"msft": Agent(symbol="MSFT", schedule="none")})
    (made,) = (d for d in every_deployment(params) if d.name == "retrain-msft")
    return UUID(str(made.apply()))


def start(client: "SyncPrefectClient", deployment: UUID) -> UUID:
    """Take the slot and say Running, as a run does, without any process behind it."""
    from prefect.states import Pending, Running

    run = client.create_flow_run_from_deployment(deployment, parameters={"agent": "msft"})
    assert client.set_flow_run_state(run.id, Pending()).state.type == "PENDING"
    assert client.set_flow_run_state(run.id, Running()).state.type == "RUNNING"
    return run.id


def test_a_second_run_waits_until_the_first_is_known_to_be_dead(
    client: "SyncPrefectClient", deployment: UUID, home: Home
) -> None:
    from prefect.states import Pending

    from flows.leftovers import clear_dead_runs

    first = start(client, deployment)
    second = client.create_flow_run_from_deployment(deployment, parameters={"agent": "msft"})
    assert client.set_flow_run_state(second.id, Pending()).state.name == "AwaitingConcurrencySlot"

    clear_dead_runs(home, NOW)

    assert client.read_flow_run(first).state.type == "CRASHED"
    assert client.set_flow_run_state(second.id, Pending()).state.type == "PENDING"
    clear_dead_runs(home, NOW)


def test_a_run_whose_process_holds_the_slot_is_left_alone(
    client: "SyncPrefectClient", deployment: UUID, home: Home
) -> None:
    from flows.leftovers import clear_dead_runs

    run = start(client, deployment)
    with slot.retraining(home, "msft", datetime(2026, 3, 2, tzinfo=UTC)):
        clear_dead_runs(home, NOW)
        assert client.read_flow_run(run).state.type == "RUNNING"
    clear_dead_runs(home, NOW)
    assert client.read_flow_run(run).state.type == "CRASHED"


def test_of_the_runs_missed_while_nothing_ran_only_the_newest_is_kept(
    client: "SyncPrefectClient", deployment: UUID, home: Home
) -> None:
    from prefect.states import Scheduled

    from flows.leftovers import clear_dead_runs

    missed = [
        client.create_flow_run_from_deployment(
            deployment, state=Scheduled(scheduled_time=NOW - timedelta(days=days))
        )
        for days in (3, 2, 1)
    ]
    clear_dead_runs(home, NOW)
    states = [client.read_flow_run(run.id).state.type for run in missed]
    assert states == ["CANCELLED", "CANCELLED", "SCHEDULED"]
