"""A registered version is rebuilt from its card: same bars, study and weights, or a clear no.

Since it was made its dataset has grown, other settings are in force, and it is another process in
another folder with another hash seed that rebuilds it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import ray
from registry_kit import home_with_mlflow
from retrain_kit import BARS, settings
from study_kit import trials_told

from core.errors import DataError, RegistryError
from core.home import PROJECT, Home
from pipelines import featurize, reproduce, retrain
from pipelines.featurize import validated_bars, validated_path
from registry import models, promotion
from sources.files import parquet_bytes, write_whole
from sources.planted import planted_bars

NOW = datetime(2024, 3, 2, 21, tzinfo=UTC)
LATER_BARS = 40


@dataclass(frozen=True)
class World:
    """A version, one that went on from it, and the bars that came since."""

    home: Home
    anew: int
    warm: int


def give(home: Home, bars: int) -> None:
    whole = planted_bars(sessions=BARS)
    write_whole(validated_path(home, "PLANTED"), parquet_bytes(whole.iloc[:bars]))
    featurize.run(home, settings(), "PLANTED")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = home_with_mlflow(tmp_path_factory.mktemp("reproduced"))
    give(home, BARS - LATER_BARS)
    anew = retrain.run(home, settings(), "planted", size="tiny", seed=5, now=NOW)
    if not anew.promoted:
        promotion.promote(home, "planted", anew.version, NOW, by="A. Tester", reason="to go on")
    warm = retrain.run(
        home, settings(), "planted", size="tiny", warm_start=True, now=NOW + timedelta(days=7)
    )
    give(home, BARS)
    yield World(home, anew.version, warm.version)
    ray.shutdown()


def same(found: reproduce.Reproduced) -> dict[str, bool]:
    return {one.what: one.same for one in found.compared}


def test_another_process_elsewhere_rebuilds_the_same_weights(world: World, tmp_path: Path) -> None:
    before = trials_told(world.home, "planted")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "reproduce", "planted", str(world.anew)],
        cwd=tmp_path,
        env=os.environ
        | {
            "RATCHET_HOME": str(world.home.root),
            "PYTHONHASHSEED": "4711",
            "PYTHONPATH": str(PROJECT),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert f"planted version {world.anew}: reproduced" in done.stdout
    registered = models.version(world.home, "planted", world.anew).tags["weights_sha256"]
    assert f"weights  same       {registered}" in done.stdout
    assert trials_told(world.home, "planted") == before  # they looked for nothing


def test_a_warm_start_is_rebuilt_from_where_it_went_on(world: World) -> None:
    found = reproduce.run(world.home, "planted", world.warm)
    assert found.passed
    assert same(found)["trial"]
    assert same(found)["policy"]


def test_a_baseline_is_rebuilt_to_the_last_byte(world: World) -> None:
    found = reproduce.run(world.home, "planted", 1)
    assert found.passed
    assert set(same(found)) == {"commit", "policy"}


def test_weights_that_come_out_otherwise_are_named(world: World) -> None:
    registered = models.version(world.home, "planted", world.anew).tags["weights_sha256"]
    models.set_tag(world.home, "planted", world.anew, "weights_sha256", "0" * 64)
    try:
        found = reproduce.run(world.home, "planted", world.anew)
    finally:
        models.set_tag(world.home, "planted", world.anew, "weights_sha256", registered)
    assert not found.passed
    assert f"weights  DIFFERENT  registered {'0' * 64}, rebuilt {registered}" in str(found)


def test_bars_restated_since_are_said_and_nothing_is_trained(world: World) -> None:
    path = validated_path(world.home, "PLANTED")
    kept = path.read_bytes()
    restated = validated_bars(world.home, "PLANTED").copy()
    restated.iloc[300, restated.columns.get_loc("close")] *= 1.001
    write_whole(path, parquet_bytes(restated))
    try:
        with pytest.raises(DataError, match=r"no part of today's 1300 bars of PLANTED hashes to"):
            reproduce.run(world.home, "planted", world.anew)
    finally:
        path.write_bytes(kept)


def test_a_version_that_does_not_exist_is_refused(world: World) -> None:
    with pytest.raises(RegistryError, match="99"):
        reproduce.run(world.home, "planted", 99)
