"""Deciding: the port between a sleeve and whoever decides for it, in this process or another.

Owns the words. ``LocalDesk`` puts the trading agent into the worker; ``serving.gateway.Gateway``
asks a process of its own for each agent.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import pandas as pd

from core.accounts import State
from core.bars import Bar
from registry.bundle import Bundle
from serving.agent import Answer, TradingAgent
from serving.closing import Close
from serving.history import FeedBar, History
from serving.timer import Tick

Note = Callable[[str, str, str], None]  # agent, kind, detail: an event for the ledger
Steer = Callable[[str, bool, str], None]  # agent, pause (or resume) it, by whom


class Trader(Protocol):
    """One model version, deciding for one sleeve."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def bundle(self) -> Bundle: ...

    def see(self) -> None:
        """Take in the bars that have just been appended to the histories."""

    def decide(self, state: State, bar: Bar) -> Answer:
        """Answer at the close of ``bar``, with the books after it; never raises for a policy."""


class Desk(Protocol):
    """Where a worker's traders sit."""

    @property
    def processes(self) -> Mapping[str, int]:
        """Return the process id of every agent that has a process and whose process runs."""
        ...

    @property
    def ready(self) -> frozenset[str] | None:
        """Return the agents that answer in time; None: there are no processes to wait for."""

    def trader(
        self,
        name: str,
        version: str,
        bundle: Bundle,
        signal: History,
        traded: History,
        vix: Callable[[], pd.Series | None],
    ) -> Trader:
        """Return who decides from now on; raise ``SpecMismatch`` as ``TradingAgent`` does."""

    def begin(self, traders: Mapping[str, Trader], note: Note, steer: Steer) -> None:
        """Get ready; called once, after every sleeve is open and before the first bar."""

    def bars(self, bars: Sequence[FeedBar]) -> None:
        """Hear of a step of the feed, before the sleeves live through it."""

    def ticks(self, ticks: Sequence[Tick]) -> None:
        """Hear of trades, those of a decision timer's symbols."""

    def closed(self, close: Close) -> None:
        """Hear what became of a decision, after its orders left."""

    def tend(self) -> None:
        """Do what there is to do between two messages of the worker."""

    def end(self) -> None:
        """Let everything go; safe to call twice."""


class LocalDesk:
    """Every trader in the worker's own process."""

    processes: Mapping[str, int] = MappingProxyType({})
    ready: frozenset[str] | None = None

    def trader(
        self,
        name: str,
        version: str,
        bundle: Bundle,
        signal: History,
        traded: History,
        vix: Callable[[], pd.Series | None],
    ) -> Trader:
        needed = vix if bundle.spec.uses_vix else lambda: None
        return TradingAgent(name, version, bundle, signal, traded, needed)

    def begin(self, traders: Mapping[str, Trader], note: Note, steer: Steer) -> None:
        """Nothing to start."""

    def bars(self, bars: Sequence[FeedBar]) -> None:
        """The sleeves' histories are the traders'."""

    def ticks(self, ticks: Sequence[Tick]) -> None:
        """Nobody listens."""

    def closed(self, close: Close) -> None:
        """The sleeve knows."""

    def tend(self) -> None:
        """Nothing to look after."""

    def end(self) -> None:
        """Nothing to stop."""
