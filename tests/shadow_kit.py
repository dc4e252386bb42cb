"""Challengers for the tests of shadows: a shelf with an alias more, and what was asked of it."""

import hashlib
import json
from pathlib import Path

import serving_kit as world

from core.settings import Params
from registry.bundle import Bundle
from serving.following import Published


class ChallengerShelf(world.FolderShelf):
    """Implements ``serving.challengers.Challengers`` over the folder of bundles."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[tuple[str, ...]] = []  # what was promoted and dropped

    def challenge(self, agent: str, *versions: str) -> None:
        (self.root / agent / "challengers.json").write_text(json.dumps(versions))

    def named(self, agent: str) -> tuple[Published, ...]:
        path = self.root / agent / "challengers.json"
        versions = json.loads(path.read_text()) if path.exists() else []
        return tuple(self.published(agent, version) for version in versions)

    def published(self, agent: str, version: str) -> Published:
        manifest = self.root / agent / version / "manifest.json"
        return Published(version, hashlib.sha256(manifest.read_bytes()).hexdigest())

    def load(self, agent: str, published: Published) -> Bundle:
        return super().load(agent, published)

    def promote(self, agent: str, version: str, over: str, figures: str) -> str:
        self.asked.append(("promote", agent, version, over, figures))
        self.point(agent, version)
        return f"version {version} is Production"

    def drop(self, agent: str, version: str, figures: str) -> str:
        self.asked.append(("drop", agent, version, figures))
        self.challenge(agent)
        return f"version {version} is not Challenger any more"


def shelf_with(root: Path, settings: Params, **seeds: int) -> ChallengerShelf:
    """Return Production 1 of both agents, and versions ``v2=seed`` … of both as challengers."""
    shelf = ChallengerShelf(root)
    for agent, seed in (("solo", 11), ("pair", 12)):
        shelf.publish(settings, agent, "1", seed)
        shelf.point(agent, "1")
        for name, other in seeds.items():
            shelf.publish(settings, agent, name.removeprefix("v"), other)
        shelf.challenge(agent, *(name.removeprefix("v") for name in seeds))
    return shelf
