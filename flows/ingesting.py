"""The flow ``ingest``: the newest bars of every symbol the agents use, then their datasets.

Owns order and retries: the network is tried again, a refusal of the data gate never.
"""

from datetime import UTC, datetime
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from core.errors import SourceUnavailable
from core.home import Home
from core.masking import discreetly
from core.settings import load_params
from flows import announce
from flows.feeds import Feed, feeds, scheduled_agents
from flows.progress import RunProgress, heard_by

MORE_TRIES = 4
WAITS_SECONDS = [10.0, 30.0, 120.0, 600.0]


def _was_the_network(task: Any, run: Any, state: Any) -> bool:
    return isinstance(state.result(raise_on_failure=False), SourceUnavailable)


@task(
    name="fetch",
    task_run_name="fetch-{feed.symbol}",
    retries=MORE_TRIES,
    retry_delay_seconds=WAITS_SECONDS,
    retry_condition_fn=_was_the_network,
)
@discreetly
def fetch(feed: Feed) -> str:
    """Append what is new of one symbol to the store; return one line about it."""
    from pipelines import ingest as stage

    home = Home.from_environment()
    params = load_params(home.params_file)
    now = datetime.now(UTC)
    return str(stage.run(home, params, feed.symbol, feed.source, feed.interval, now=now))


@flow(name="ingest", on_failure=[announce.failed], on_crashed=[announce.failed])
@discreetly
def ingest(symbols: list[str] | None = None) -> None:
    """Fetch new bars, then rebuild the datasets that changed (`dvc repro`).

    Args:
        symbols: Only these; empty: every symbol that an agent trades or learns on.
    """
    from pipelines import workspace

    home = Home.from_environment()
    params = load_params(home.params_file)
    wanted = [
        feed
        for feed in feeds(params, scheduled_agents(params))
        # A file does not grow by itself: its bars come by `ratchet ingest … --path`.
        if feed.source != "csv" and (symbols is None or feed.symbol in symbols)
    ]
    rows = []
    for feed in wanted:
        told = fetch(feed)
        get_run_logger().info("%s", told)
        rows.append({"symbol": feed.symbol, "source": feed.source, "result": told})
    create_table_artifact(rows, key="ingest", description="what each source delivered")
    targets = [f"featurize@{feed.dataset}" for feed in wanted]
    workspace.reproduce(home, targets, heard_by(RunProgress(key="datasets")))
