"""A warm start, end to end: Production's weights, as MLflow keeps them, are where learning begins.

And what the agent did on paper in between goes with the retraining. Learning rates next to nothing
keep the weights where they began, so they can be told.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from retrain_kit import SECTIONS, home_with_data, settings

from core.home import Home
from pipelines import paper, retrain
from pipelines.record import WEIGHTS
from registry import models, promotion
from registry.bundle import card_of
from registry.connection import connect
from training.export import unpack

NOW = datetime(2024, 3, 2, 21, tzinfo=UTC)
PLANTED = {"symbol": "PLANTED", "source": "planted", "schedule": "none"}
AGENTS = {
    "stock": PLANTED,
    "fund": PLANTED | {"algorithm": "sac", "actions": "continuous"},
}
SAC = {"updates": 40, "warmup": 128, "batch": 32, "hidden": [16]}
STILL = 1e-12  # a learning rate


def settled(rate: float | None = None) -> Any:
    """Return the settings, with a learning rate for both algorithms where one is given."""
    own = {"learning_rate": rate} if rate else {}
    ppo, search = {**SECTIONS["ppo"], "steps": 2_048}, {**SECTIONS["search"]}
    search["sizes"] = {"tiny": {"trials": 1, "seeds": 1, "folds": 1}}
    return settings(agents=AGENTS, ppo=ppo | own, sac=SAC | own, search=search)


@dataclass(frozen=True)
class World:
    """What a first retraining, promoted and traded, and two that followed left behind."""

    home: Home
    weights: dict[tuple[str, str], dict[str, np.ndarray]]  # agent, which -> arrays by name
    runs: dict[str, str]  # agent -> run of the warm retraining

    def actor(self, agent: str, which: str) -> np.ndarray:
        """Return all weights of the actor in one row."""
        named = self.weights[agent, which]
        return np.concatenate([named[n].ravel() for n in sorted(named) if n.startswith("actor")])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = home_with_data(Path(tmp_path_factory.mktemp("warm")))
    weights, runs = {}, {}

    def retrained(agent: str, which: str, days: int, rate: float | None, **options: Any) -> int:
        now = NOW + timedelta(days=days)
        done = retrain.run(home, settled(rate), agent, size="tiny", now=now, **options)
        version = models.version(home, agent, done.version)
        content = models.run_file(home, version, WEIGHTS)
        assert content is not None
        weights[agent, which] = unpack(content)
        runs[agent] = done.run_id
        return int(done.version)

    for agent in AGENTS:
        first = retrained(agent, "production", 0, None)
        if models.alias(home, agent, "Production") != first:
            promotion.promote(home, agent, first, NOW, by="A. Tester", reason="to go on from it")
    paper.compare(home, settled(), tuple(AGENTS))
    for agent in AGENTS:
        retrained(agent, "anew", 7, STILL)
        retrained(agent, "warm", 14, STILL, warm_start=True)
    yield World(home, weights, runs)
    ray.shutdown()


@pytest.mark.parametrize("agent", AGENTS)
def test_a_warm_start_begins_where_production_ended(world: World, agent: str) -> None:
    production = world.actor(agent, "production")
    assert np.allclose(world.actor(agent, "warm"), production, atol=1e-6)
    assert not np.allclose(world.actor(agent, "anew"), production, atol=1e-2)


@pytest.mark.parametrize("agent", AGENTS)
def test_the_card_names_the_bundle_it_went_on_from(world: World, agent: str) -> None:
    versions = models.versions(world.home, agent)
    production = models.with_alias(world.home, agent, "Production")
    anew, warm = (card_of(models.fetch(world.home, v).folder) for v in versions[-2:])
    assert warm.parent == production.bundle_sha256
    assert anew.parent is None


@pytest.mark.parametrize("agent", AGENTS)
def test_what_was_traded_in_between_goes_with_the_run(world: World, agent: str) -> None:
    client = connect(world.home)
    run = client.get_run(world.runs[agent])
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert f"{agent}.parquet" in files
    assert len(run.data.tags["experience_sha256"]) == 64
    card = card_of(models.fetch(world.home, models.versions(world.home, agent)[-1]).folder)
    told = card.params["run"]["experience"]
    assert told["live_bars"] == settled().split.paper_bars
    assert (told["unknown_bars"], told["differing_prices"]) == (0, 0)
    assert told["replayed"] == 0  # the bars of the paper session are nobody's training rows
