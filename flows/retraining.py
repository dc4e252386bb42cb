"""The flow ``retrain``: one agent's study, seeds, walk-forward, gate and registration.

Owns order, slot, artifacts and announcements. All of the work is ``pipelines.retrain``'s.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from core.home import Home
from core.masking import discreetly
from core.settings import load_params
from flows import announce, reports, servers, slot
from flows.progress import RunProgress, heard_by, slug

if TYPE_CHECKING:
    from pipelines.retrain import Retrained


@flow(
    name="retrain",
    flow_run_name="retrain-{agent}",
    on_failure=[announce.failed],
    on_crashed=[announce.failed],
)
@discreetly
def retrain(
    agent: str,
    size: str = "default",
    trials: int | None = None,
    seeds: int | None = None,
    warm_start: bool = False,
    seed: int | None = None,
    reason: str = "by hand",
) -> "Retrained":
    """Search, train, judge and register a candidate; promote it if the gate says so.

    Args:
        agent: An entry under `agents:` in params.yaml.
        size: How much work: an entry under `search.sizes` in params.yaml.
        trials: Trials of the Optuna study; empty: as the size says.
        seeds: Seeds of the final candidate; empty: as the size says.
        warm_start: Fine-tune the Production policy instead of training anew.
        seed: First seed; empty: `search.seed` in params.yaml.
        reason: Why this run; recorded in the model's card.
    """
    from pipelines import retrain as stage

    home = Home.from_environment()
    now = datetime.now(UTC)
    params = load_params(home.params_file)
    params.agent(agent)
    with slot.retraining(home, agent, now):
        done = stage.run(
            home,
            params,
            agent,
            size=size,
            trials=trials,
            seeds=seeds,
            warm_start=warm_start,
            seed=seed,
            reason=reason,
            now=now,
            report=heard_by(RunProgress(key=f"retrain-{agent}")),
        )
    _publish(home, done)
    announce.gate(home, params, agent, done.version, done.verdict, done.reasons)
    return done


def _publish(home: Home, done: "Retrained") -> None:
    """Store the verdict, the comparison and the way to the evidence as artifacts of this run."""
    address = _mlflow_address(home, done.run_id)
    create_table_artifact(
        reports.scoreboard(done.contenders),
        key=slug(f"retrain-{done.agent}-gate"),
        description=f"**{done.verdict}**: {'; '.join(done.reasons)}",
    )
    create_markdown_artifact(
        reports.retrained_markdown(done, address),
        key=slug(f"retrain-{done.agent}"),
        description=f"{done.agent}: {done.verdict}",
    )
    if address:
        create_link_artifact(
            address,
            key=slug(f"retrain-{done.agent}-mlflow"),
            link_text="the run in MLflow",
            description=f"Parameters, trials, curves and reports of {done.agent}.",
        )


def _mlflow_address(home: Home, run_id: str) -> str:
    """Return where a browser finds the run; empty while no MLflow page is up."""
    from registry.tracking import backend_uri, run_address

    note = servers.noted(home).get("mlflow")
    page = note.url if note else backend_uri(home)
    return run_address(page, run_id) if page.startswith("http") else ""
