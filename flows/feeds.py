"""Which streams of bars the agents of params.yaml need."""

from collections.abc import Iterable
from dataclasses import dataclass

from core.settings import Interval, Params, Source


@dataclass(frozen=True, slots=True)
class Feed:
    """One symbol from one source."""

    symbol: str
    source: Source
    interval: Interval

    @property
    def dataset(self) -> str:
        from sources.manifest import dataset_name

        return dataset_name(self.symbol, self.interval)


def feeds(params: Params, agents: Iterable[str]) -> list[Feed]:
    """Return what ``agents`` trade and learn on, each once."""
    found: dict[Feed, None] = {}
    for agent in map(params.agent, agents):
        for symbol in (agent.signal_symbol, agent.symbol):
            found[Feed(symbol, agent.source, agent.interval)] = None
    return list(found)


def scheduled_agents(params: Params) -> list[str]:
    """Return the agents that run by schedule and are served: all but those of the demo."""
    return [name for name, agent in params.agents.items() if not agent.demonstration]
