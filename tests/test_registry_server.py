"""The registry against a real MLflow server on loopback, and after that server is gone."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from registry_kit import home_with_mlflow, save_baseline

from core.errors import ServiceUnavailable
from core.home import Home
from registry import models, promotion
from registry.bundle import load_bundle
from registry.connection import connect
from registry.tracking import start_run

NOW = datetime(2026, 3, 2, 21, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class MlflowServer:
    process: subprocess.Popen[bytes]
    url: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    home = home_with_mlflow(tmp_path_factory.mktemp("server"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home.mlflow / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(home.mlflow / "served")]
    off = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = os.environ | off
    environment.pop("MLFLOW_TRACKING_URI", None)
    log = home.root / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(process, url, log)
        yield MlflowServer(process, url)
    finally:
        _end(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)  # a server that starts has no other way to say it is ready
    pytest.fail(f"the MLflow server did not start:\n{log.read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, 9)
        process.wait(timeout=20)


@pytest.fixture
def home(server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    return Home(tmp_path)


def test_a_worker_lives_on_after_the_server_is_gone(home: Home, server: MlflowServer) -> None:
    # One story, in order: register, promote, trade, roll back; then the server dies.
    for number, kind in enumerate(("buy_and_hold", "random"), start=1):
        save_baseline(home.root / "made" / kind, kind)
        with start_run(home, "demo", kind) as run:
            run.log_curves({"reward": [0.0, 1.0]})
            made = models.register(home, "demo", home.root / "made" / kind, run=run)
        assert made.number == number
    assert connect(home).get_run(run.run_id).info.artifact_uri.startswith("mlflow-artifacts:")

    promotion.install(home, "demo", 1, NOW)
    promotion.promote(home, "demo", 2, NOW, by="ada", reason="a drill")
    copy = models.production(home, "demo")
    assert load_bundle(copy.folder, copy.bundle_sha256).card.algorithm == "random"
    promotion.rollback(home, "demo", "ada", "the drill is over", NOW)
    copy = models.production(home, "demo")
    assert load_bundle(copy.folder, copy.bundle_sha256).card.algorithm == "buy_and_hold"
    assert promotion.discrepancies(home, "demo") == []
    assert not home.mlflow.exists()  # everything went through the server

    _end(server.process)
    began = time.monotonic()
    expected = rf"{server.url} does not answer .*start it, or correct MLFLOW_TRACKING_URI"
    with pytest.raises(ServiceUnavailable, match=expected):
        models.production(home, "demo")
    assert time.monotonic() - began < 30.0
    assert models.cached_production(home, "demo") == copy
    assert promotion.was_production(home, "demo", NOW).change.number == 1


def test_a_server_that_never_answers_is_given_up_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        began = time.monotonic()
        with pytest.raises(ServiceUnavailable, match=f"{url} does not answer"):
            models.aliases(Home(tmp_path), "demo")
        assert time.monotonic() - began < 30.0
