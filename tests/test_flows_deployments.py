"""The deployments, against a real Prefect server and as a person sees them in its UI."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from flows_kit import Served, browsing, wait_for

AGENTS = ("aapl", "ixic3x")  # of params.yaml; `planted` is for the demo only
EACH = ("retrain", "monitor", "rollback")
EXPECTED = {"ingest-all", "parity-all"} | {f"{f}-{a}" for f in EACH for a in AGENTS}


@pytest.fixture(scope="module")
def deployments(served: Served) -> dict[str, Any]:
    """Return every deployment as the server's API tells it, by name."""
    found: dict[str, Any] = {}

    def all_there() -> bool:
        found.update({deployment["name"]: deployment for deployment in ask(served, "deployments")})
        return len(found) >= len(EXPECTED)

    wait_for("the deployments", 90, all_there)
    return found


def ask(served: Served, what: str, **query: Any) -> Any:
    """Return the answer of the API to POST /<what>/filter."""
    request = urllib.request.Request(
        f"{served.api}/{what}/filter",
        data=json.dumps(query).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def test_every_agent_has_its_deployments_and_the_demo_has_none(deployments: dict[str, Any]) -> None:
    assert set(deployments) == EXPECTED


def test_retraining_has_a_weekly_and_a_monthly_schedule_and_params_yaml_chooses(
    deployments: dict[str, Any],
) -> None:
    found = {
        schedule["slug"]: (schedule["schedule"]["cron"], schedule["active"])
        for schedule in deployments["retrain-aapl"]["schedules"]
    }
    assert found == {"weekly": ("0 9 * * sat", True), "monthly": ("0 9 1 * *", False)}


def test_data_is_fetched_after_each_session_in_exchange_time(deployments: dict[str, Any]) -> None:
    (schedule,) = deployments["ingest-all"]["schedules"]
    assert schedule["schedule"]["cron"] == "30 17 * * mon-fri"
    assert schedule["schedule"]["timezone"] == "America/New_York"
    assert schedule["active"]


def test_what_was_traded_is_certified_when_its_bars_are_stored(deployments: dict[str, Any]) -> None:
    (schedule,) = deployments["parity-all"]["schedules"]
    assert schedule["schedule"]["cron"] == "15 18 * * mon-fri"
    assert schedule["active"]
    assert deployments["parity-all"]["parameter_openapi_schema"]["properties"]["session"]


def test_the_parameters_of_a_retraining_can_be_edited_and_are_explained(
    deployments: dict[str, Any],
) -> None:
    schema = deployments["retrain-aapl"]["parameter_openapi_schema"]["properties"]
    names = {"agent", "size", "trials", "seeds", "warm_start", "seed", "reason"}
    assert set(schema) == names
    assert all(schema[name]["description"] for name in names)
    assert schema["warm_start"]["type"] == "boolean"
    assert deployments["retrain-aapl"]["parameters"] == {"agent": "aapl"}


def test_retrainings_of_one_agent_queue_behind_each_other(deployments: dict[str, Any]) -> None:
    deployment = deployments["retrain-aapl"]
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"


def test_a_page_of_the_ui_shows_the_deployments(
    served: Served, deployments: dict[str, Any], tmp_path: Path
) -> None:
    def shown() -> bool:
        return {line.strip() for line in page.text().splitlines()} >= EXPECTED

    with browsing(tmp_path / "profile") as page:
        page.open(f"{served.page}/deployments")
        wait_for("the deployments on the page", 60, shown)
