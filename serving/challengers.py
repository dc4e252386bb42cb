"""Challengers: which versions run beside Production, and what becomes of them in the registry.

Owns the port, and the file in which a person names further versions. Knows neither bars nor books;
MLflow is imported by the first look, in the shadows' own thread.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from core.errors import ConfigError
from core.home import Home
from registry.bundle import Bundle
from serving.following import Published
from serving.shelf import RegistryShelf
from sources.files import write_whole


class Challengers(Protocol):
    """Where versions to be compared with Production are found."""

    def named(self, agent: str) -> tuple[Published, ...]:
        """Return the alias Challenger's version first, then those a person named."""

    def load(self, agent: str, published: Published) -> Bundle:
        """Return a verified bundle; raise ``BadBundle``, ``SpecMismatch``, … ."""

    def promote(self, agent: str, version: str, over: str, figures: str) -> str:
        """Make a version Production in place of ``over``; say what was done.

        Raises ``PromotionRefused`` where ``over`` is not Production any more.
        """

    def drop(self, agent: str, version: str, figures: str) -> str:
        """Take the alias Challenger from a version, if it has it; say what was done, or nothing."""


class RegistryChallengers:
    """Implements ``Challengers`` over the registry of a home."""

    def __init__(self, home: Home, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._home = home
        self._now = now
        self._shelf = RegistryShelf(home)

    def named(self, agent: str) -> tuple[Published, ...]:
        from registry.models import aliases

        held = aliases(self._home, agent)
        numbers = [held["Challenger"]] if "Challenger" in held else []
        further = (*numbers, *further_versions(self._home, agent))
        return tuple(self._shelf.published(agent, number) for number in dict.fromkeys(further))

    def load(self, agent: str, published: Published) -> Bundle:
        return self._shelf.load(agent, published)

    def promote(self, agent: str, version: str, over: str, figures: str) -> str:
        from registry.promotion import promote_shadow

        return str(promote_shadow(self._home, agent, int(version), int(over), self._now(), figures))

    def drop(self, agent: str, version: str, figures: str) -> str:
        from registry.promotion import SHADOW, dismiss

        gone = dismiss(self._home, agent, int(version), self._now(), SHADOW, figures)
        return f"version {version} is not Challenger any more: {figures}" if gone else ""


def further_versions(home: Home, agent: str) -> tuple[int, ...]:
    """Return the versions a person lets run beside Production, besides the Challenger."""
    return tuple(_read(home).get(agent, ()))


def name_version(home: Home, agent: str, number: int) -> None:
    """Let a version run beside Production; a running worker follows at its next look."""
    content = _read(home)
    _write(home, content | {agent: sorted({*content.get(agent, ()), number})})


def unname_version(home: Home, agent: str, number: int) -> None:
    """Let a version that was named run no more; raise ``ConfigError`` where it was not."""
    content = _read(home)
    known = content.get(agent, [])
    if number not in known:
        raise ConfigError(
            f"{agent}: version {number} was not named to run beside Production, named are "
            f"{known or 'none'}; the alias Challenger is moved by the registry"
        )
    _write(home, content | {agent: [one for one in known if one != number]})


def _read(home: Home) -> dict[str, list[int]]:
    if not home.shadows.exists():
        return {}
    try:
        content = json.loads(home.shadows.read_text(encoding="utf-8"))
        return {str(agent): [int(one) for one in numbers] for agent, numbers in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{home.shadows}: not a list of versions by agent ({error}); delete it and name them "
            "again with `ratchet shadow AGENT --version N`"
        ) from error


def _write(home: Home, content: dict[str, list[int]]) -> None:
    home.make(home.root)
    write_whole(home.shadows, json.dumps(content, indent=1).encode())
