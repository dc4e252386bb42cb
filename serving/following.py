"""Following aliases: which version is Production now, looked up beside the trading.

Owns the poll thread and what it says: a verified, loaded bundle that is ready to take over, or why
a version was refused. Knows nothing of bars, sleeves and the ledger; the worker swaps between
bars.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event, Thread
from typing import Final, Protocol

from core.errors import RatchetError, ServiceUnavailable
from registry.bundle import Bundle

ALIAS: Final = "Production"


@dataclass(frozen=True, slots=True)
class Published:
    """A version an alias points to."""

    version: str
    bundle_sha256: str


class Shelf(Protocol):
    """Where published bundles are found."""

    def production(self, agent: str) -> Published:
        """Return what Production is; raise ``UnknownVersion`` or ``ServiceUnavailable``."""

    def load(self, agent: str, published: Published) -> Bundle:
        """Return the verified bundle; raise ``BadBundle``, ``SpecMismatch``, … ."""


@dataclass(frozen=True, slots=True)
class AliasMoved:
    """Another version is Production, loaded and ready."""

    agent: str
    published: Published
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class AliasRefused:
    """Another version is Production, but cannot be used; the present one goes on."""

    agent: str
    published: Published
    reason: str


class Follower:
    """Polls the aliases of some agents in a thread of its own."""

    def __init__(
        self,
        shelf: Shelf,
        current: Mapping[str, Published],
        poll_seconds: float,
        tell: Callable[[AliasMoved | AliasRefused], None],
        logger: logging.Logger,
    ) -> None:
        self._shelf = shelf
        self._seen = dict(current)
        self._poll_seconds = poll_seconds
        self._tell = tell
        self._logger = logger
        self._away = False
        self._stop = Event()
        self._thread = Thread(target=self._run, name="aliases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10.0)

    def poll(self) -> None:
        """Look once at every agent's alias."""
        for agent in list(self._seen):
            if self._stop.is_set():
                return
            try:
                self._look(agent)
            except ServiceUnavailable as error:
                if not self._away:
                    self._logger.warning("registry away", extra={"reason": str(error)})
                self._away = True
                return
            if self._away:
                self._logger.info("registry back")
            self._away = False

    def _run(self) -> None:
        while not self._stop.is_set():
            self.poll()
            self._stop.wait(self._poll_seconds)

    def _look(self, agent: str) -> None:
        try:
            published = self._shelf.production(agent)
        except ServiceUnavailable:
            raise
        except RatchetError as error:  # no Production any more: the present version goes on
            self._logger.warning("alias lost", extra={"agent": agent, "reason": str(error)})
            return
        if published == self._seen[agent]:
            return
        try:
            bundle = self._shelf.load(agent, published)
        except ServiceUnavailable:
            raise
        except RatchetError as error:
            self._seen[agent] = published
            self._tell(AliasRefused(agent, published, str(error)))
            return
        self._seen[agent] = published
        self._tell(AliasMoved(agent, published, bundle))
