"""Runs: what a training did, for people to compare in MLflow.

Owns experiments (one per agent), runs and their children, parameters, metrics, learning curves,
files and links. Must not know versions, aliases or what the numbers mean.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import RatchetError
from core.home import Home
from core.masking import confidential, masked
from registry.connection import answering, artifact_location, backend_uri, connect

__all__ = ["Run", "backend_uri", "run_address", "start_run"]

METRICS_PER_CALL, PARAMS_PER_CALL, TAGS_PER_CALL = 1_000, 100, 100  # MLflow's own limits
LONGEST_PARAM = 6_000  # characters
BUNDLE_FOLDER = "bundle"  # where a run keeps the policy it made


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an agent's experiment, open until its ``start_run`` block ends."""

    home: Home
    agent: str
    experiment_id: str
    run_id: str
    artifact_uri: str

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters; nested mappings become dotted names."""
        from mlflow.entities import Param

        flat = [Param(name, _told(text)[:LONGEST_PARAM]) for name, text in _flattened(params)]
        self._log("params", flat, PARAMS_PER_CALL)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record one value per metric."""
        self.log_curves({name: [value] for name, value in metrics.items()}, [step])

    def log_curves(
        self, curves: Mapping[str, Sequence[float]], steps: Sequence[int] | None = None
    ) -> None:
        """Record whole learning curves in few calls; ``steps`` default to 0, 1, 2 …"""
        from mlflow.entities import Metric

        stamp = time.time_ns() // 1_000_000  # MLflow orders points by step, then by this
        points = [
            Metric(name, float(value), stamp, int(step))
            for name, values in curves.items()
            for step, value in zip(
                range(len(values)) if steps is None else steps, values, strict=True
            )
        ]
        self._log("metrics", points, METRICS_PER_CALL)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags; a second value replaces the first."""
        from mlflow.entities import RunTag

        self._log("tags", [RunTag(name, _told(text)) for name, text in tags.items()], TAGS_PER_CALL)

    def log_file(self, file: Path, under: str | None = None) -> None:
        """Copy one file to the run's artifacts."""
        with answering(self.home):
            connect(self.home).log_artifact(self.run_id, str(file), under)

    def log_folder(self, folder: Path, under: str | None = None) -> None:
        """Copy the content of a folder to the run's artifacts."""
        with answering(self.home):
            connect(self.home).log_artifacts(self.run_id, str(folder), under)

    def log_text(self, text: str, name: str) -> None:
        """Write ``text`` as the artifact ``name``, e.g. ``gate.json``."""
        with answering(self.home):
            connect(self.home).log_text(self.run_id, text, name)

    @contextmanager
    def child(self, name: str, tags: Mapping[str, str] | None = None) -> Iterator["Run"]:
        """Open a run below this one: a trial, a fold, a seed."""
        with start_run(self.home, self.agent, name, tags, parent=self) as run:
            yield run

    def _log(self, kind: str, items: Sequence[Any], per_call: int) -> None:
        client = connect(self.home)
        with answering(self.home):
            for start in range(0, len(items), per_call):
                client.log_batch(self.run_id, **{kind: items[start : start + per_call]})


@contextmanager
def start_run(
    home: Home,
    agent: str,
    name: str,
    tags: Mapping[str, str] | None = None,
    parent: Run | None = None,
) -> Iterator[Run]:
    """Open a run in the agent's experiment; it ends FINISHED, or FAILED when the block raises.

    Tags worth setting: ``dataset_sha256``, ``git_commit``, ``dvc_lock_sha256``. Raises
    ``ServiceUnavailable`` naming MLflow's address and a remedy.
    """
    client = connect(home)
    further = {label: _told(text) for label, text in (tags or {}).items()}
    labels = {"mlflow.runName": name, "agent": agent, **further}
    if parent is not None:
        labels["mlflow.parentRunId"] = parent.run_id
    with answering(home):
        experiment = _experiment(home, client, agent) if parent is None else parent.experiment_id
        made = client.create_run(experiment, tags=labels)
    run = Run(home, agent, experiment, made.info.run_id, made.info.artifact_uri)
    try:
        yield run
    except BaseException:  # an interrupted run is a failed one, too
        with suppress(RatchetError):  # what went wrong inside matters more
            _finish(run, "FAILED")
        raise
    _finish(run, "FINISHED")


def run_address(page: str, run_id: str) -> str:
    """Return the address of a run in the MLflow UI at ``page``, e.g. http://127.0.0.1:5000.

    It is shown and kept, so it holds neither name nor password: the browser asks for them.
    """
    page = re.sub(r"(?<=://)[^/@]*@", "", page)
    return f"{page.rstrip('/')}/#/runs/{run_id}"


def _experiment(home: Home, client: Any, agent: str) -> str:
    found = client.get_experiment_by_name(agent)
    if found is None:
        try:
            return str(client.create_experiment(agent, artifact_location(home, agent)))
        except Exception:  # another process was first; if not, the next line says what is wrong
            found = client.get_experiment_by_name(agent)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _finish(run: Run, status: str) -> None:
    with answering(run.home):
        connect(run.home).set_terminated(run.run_id, status)


def _told(value: object) -> str:
    """Return what may be read by everybody who can open MLflow's page."""
    return masked(str(value), confidential(os.environ))


def _flattened(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
