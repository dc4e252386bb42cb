"""The registry as the worker's shelf: a real MLflow store, and the verified copies without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import serving_kit as world
from registry_kit import home_with_mlflow

from core.errors import BadBundle, ServiceUnavailable, UnknownVersion
from core.home import Home
from registry import models
from serving.following import Published
from serving.ledger import LedgerReader, rows
from serving.shelf import RegistryShelf
from serving.worker import Worker

AWAY = "http://127.0.0.1:1"  # nobody listens there

PROGRAM = """
import sys
import serving_kit as world
from core.home import Home
from serving.worker import Worker
Worker(Home.from_environment(), world.params(), ["solo"], world.feed(), environment={}).run()
print("heavy:", *sorted({"torch", "ray", "optuna", "prefect", "sklearn"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose registry holds two versions of one agent; the first is Production."""
    home = home_with_mlflow(tmp_path_factory.mktemp("shelf") / "home")
    made = world.FolderShelf(home.root / "made")
    for number, seed in ((1, 11), (2, 22)):
        made.publish(world.params(), "solo", str(number), seed)
        models.register(home, "solo", home.root / "made" / "solo" / str(number))
    models.set_alias(home, "solo", "Production", 1)
    return home


def test_an_alias_leads_to_a_verified_bundle(published: Home) -> None:
    shelf = RegistryShelf(published)
    found = shelf.production("solo")
    assert found.version == "1"
    assert shelf.load("solo", found).sha256 == found.bundle_sha256
    models.set_alias(published, "solo", "Production", 2)
    assert shelf.production("solo").version == "2"
    models.set_alias(published, "solo", "Production", 1)
    with pytest.raises(UnknownVersion, match="nobody: no version is Production"):
        shelf.production("nobody")


def test_a_damaged_copy_is_fetched_anew_or_refused(
    published: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = RegistryShelf(published)
    found = shelf.production("solo")
    shelf.load("solo", found)
    policy = published.bundles / found.bundle_sha256 / "policy.onnx"
    whole = policy.read_bytes()
    policy.write_bytes(whole[:-1] + b"x")
    assert shelf.load("solo", found).sha256 == found.bundle_sha256
    assert policy.read_bytes() == whole
    policy.write_bytes(whole[:-1] + b"x")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", AWAY)
        with pytest.raises(BadBundle, match=r"altered.*could replace it is away"):
            shelf.load("solo", found)
        with pytest.raises(ServiceUnavailable):
            shelf.load("solo", Published("2", "e" * 64))
    shelf.load("solo", found)


def test_a_worker_process_imports_no_learning_library_and_lives_on_without_mlflow(
    published: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(__file__).parent
    environment = os.environ | {
        "RATCHET_HOME": str(published.root),
        "PYTHONPATH": f"{here.parent}{os.pathsep}{here}",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["heavy:"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    away = Worker(
        published, world.params(), ["solo"], world.feed(), fresh=True, environment={}
    ).run()
    assert away.session == 2
    with LedgerReader(published.ledger) as ledger:
        first, second = (ledger.rows(rows.Equity, session=number) for number in (1, 2))
    assert [book.equity for book in first] == [book.equity for book in second]
