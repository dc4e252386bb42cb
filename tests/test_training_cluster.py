"""A study moves to a cluster by RAY_ADDRESS alone, and lives through the loss of a node."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from study_kit import height

from core.home import PROJECT
from flows import servers

JOIN = """
import sys
from pathlib import Path
from core.home import Home
from training import workers
workers.start(Home(Path(sys.argv[1])))
import ray
answer = ray.get(ray.remote(num_cpus=1)(lambda: "trained on").remote())
print(answer, ray.cluster_resources()["far"])
"""

STUDY = """
import json
import sys
import time
from pathlib import Path

import study_kit
from core.home import Home
from training import workers
from training.study import search

place = Path(sys.argv[1])
workers.start(Home(place / "home"))
import ray
ray.cloudpickle.register_pickle_by_value(study_kit)

def patient(lesson, report):
    node = ray.get_runtime_context().get_node_id()
    (place / "nodes" / node).touch()
    deadline = time.monotonic() + 60.0
    while not (place / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return study_kit.climb(lesson, report)

done = search(Home(place / "home"), study_kit.plan(trials=6), dict, train=patient)
told = [[one.state, one.score, dict(one.hyperparameters)] for one in done.trials]
(place / "trials.json").write_text(json.dumps(told))
"""
TESTS = Path(__file__).parent
SECONDS = 60.0  # that a busy machine may take for any one thing


def environment(user: Path, **more: str) -> dict[str, str]:
    """Return the environment of a person whose home folder, and so whose token, is ``user``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return {**kept, "HOME": str(user), **more}


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a person's home folder, with the token that any earlier use of Ray leaves there."""
    home = tmp_path_factory.mktemp("user")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("5" * 64)
    return home


@contextlib.contextmanager
def node(user: Path, machine: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a node with one processor, of a cluster that asks for a token; kill it at the end.

    Every address of the loopback device is a machine of its own.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments]
    command += ["--num-cpus=1", "--disable-usage-stats", f"--node-ip-address={machine}"]
    quick = {"RAY_health_check_period_ms": "500", "RAY_health_check_initial_delay_ms": "1000"}
    process = subprocess.Popen(
        command,
        env=environment(user, RAY_AUTH_MODE="token", **quick),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        told = ""
        for line in process.stdout:
            told += line
            if "Ray runtime started" in line:
                break
        assert "Ray runtime started" in told, told
        yield process
    finally:
        end(process)
        process.stdout.close()


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it started, as the loss of a machine would."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait()


@pytest.fixture(scope="module")
def cluster(user: Path) -> Iterator[str]:
    """Start a cluster of one node that asks for a token; return its address."""
    port = servers.free_port()
    head = ["--head", f"--port={port}", "--include-dashboard=false"]
    with node(user, "127.0.0.1", *head, '--resources={"far": 1}'):
        yield f"127.0.0.1:{port}"


def join(home: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", JOIN, str(home)],
        env=variables, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_work_goes_to_the_cluster_that_ray_address_names(
    cluster: str, user: Path, tmp_path: Path
) -> None:
    done = join(tmp_path, environment(user, RAY_ADDRESS=cluster))
    assert done.stdout.strip() == "trained on 1.0", done.stderr


def test_who_has_no_token_is_told_where_it_goes(cluster: str, tmp_path: Path) -> None:
    done = join(tmp_path, environment(tmp_path, RAY_ADDRESS=cluster))
    assert done.returncode != 0
    assert f"the cluster at {cluster} did not start" in done.stderr
    assert "RAY_AUTH_TOKEN" in done.stderr


def test_a_study_on_two_nodes_survives_the_loss_of_one(
    cluster: str, user: Path, tmp_path: Path
) -> None:
    (tmp_path / "nodes").mkdir()
    variables = environment(user, RAY_ADDRESS=cluster, PYTHONPATH=f"{PROJECT}:{TESTS}")
    with node(user, "127.0.0.2", f"--address={cluster}") as second:
        study = subprocess.Popen(
            [sys.executable, "-c", STUDY, str(tmp_path)],
            env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + SECONDS
            while len(list((tmp_path / "nodes").iterdir())) < 2 and study.poll() is None:
                assert time.monotonic() < deadline, "no trial on the second node"
                time.sleep(0.05)
            end(second)  # in the middle of a trial, which waits for what never comes to it
            (tmp_path / "go").touch()
            _, problem = study.communicate(timeout=SECONDS)
        finally:
            study.kill()
            study.wait()
    assert study.returncode == 0, problem
    trials = json.loads((tmp_path / "trials.json").read_text())
    assert len(list((tmp_path / "nodes").iterdir())) == 2
    assert len(trials) == 6
    assert {state for state, _, _ in trials} <= {"complete", "pruned"}  # and none failed
    for state, score, values in trials:
        if state == "complete":
            assert score == height(values)
