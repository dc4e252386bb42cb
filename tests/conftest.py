"""What all tests share: no usage statistics, and never the state of a real installation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flows_kit import Served, serving_prefect
from xdist.scheduler import LoadFileScheduling

from core import telemetry
from core.home import PROJECT, Home

telemetry.switch_off()

SERVED = {
    f"tests/test_flows_{name}.py"
    for name in ("deployments", "leftovers", "after_session", "masking")
}


class ByFile(LoadFileScheduling):
    """Hands whole files to the test processes: what a file sets up is set up once."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return "served" if file in SERVED else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Replace the choice of --dist: xdist's groups go unheeded with the pytest pinned here."""
    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _no_real_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point RATCHET_HOME at an empty folder, for code that asks the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(tmp_path_factory.mktemp("no-home")))
        for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("no-prefect")))
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Return a home of its own, which RATCHET_HOME names too."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    return Home.from_environment()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a home of the session with a real Prefect server and every deployment served.

    Starting it takes half a minute of a core: the files that use it are in SERVED, so that one
    process has it and no other.
    """
    home = Home(tmp_path_factory.mktemp("served"))
    home.make(home.workspace)
    home.params_file.write_bytes((PROJECT / "params.yaml").read_bytes())
    with serving_prefect(home) as running:
        yield running
