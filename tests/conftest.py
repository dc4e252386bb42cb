"""What all tests share: no usage statistics, and never the state of a real installation."""

from pathlib import Path

import pytest

from core import telemetry
from core.home import Home

telemetry.switch_off()


@pytest.fixture(scope="session", autouse=True)
def _no_real_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Point RATCHET_HOME at an empty folder, for code that asks the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(tmp_path_factory.mktemp("no-home")))
        for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Return a home of its own, which RATCHET_HOME names too."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    return Home.from_environment()
