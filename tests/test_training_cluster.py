"""A study moves to a cluster by RAY_ADDRESS alone, though a cluster asks for a token."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

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


@pytest.fixture(scope="module")
def cluster(user: Path) -> Iterator[str]:
    """Start a cluster of one node that asks for a token; return its address."""
    port = servers.free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--port={port}", "--num-cpus=1", '--resources={"far": 1}']
    command += ["--include-dashboard=false", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    process = subprocess.Popen(
        command,
        env=environment(user, RAY_AUTH_MODE="token"),
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
        yield f"127.0.0.1:{port}"
    finally:
        whole = [*psutil.Process(process.pid).children(recursive=True), process]
        for one in whole:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        process.stdout.close()


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
