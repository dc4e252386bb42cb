"""Messages: everything that reaches the worker's main loop, by one queue.

Owns the words. In one process they are put on a queue; between processes they are what is sent.
"""

from dataclasses import dataclass

from serving.following import AliasMoved, AliasRefused
from serving.history import FeedBar


@dataclass(frozen=True, slots=True)
class BarsArrived:
    """One step of the feed."""

    bars: tuple[FeedBar, ...]


@dataclass(frozen=True, slots=True)
class FeedEnded:
    """No more bars will come: the feed is through, or has failed."""

    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Filled:
    """The broker has told of an execution; what it was is asked for."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Let an agent hold what it has, or trade again."""

    agent: str
    on: bool
    by: str


@dataclass(frozen=True, slots=True)
class Reload:
    """Read params.yaml again, and take over what may change in flight."""

    by: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish the bar at hand and end."""

    reason: str


Message = BarsArrived | FeedEnded | Filled | AliasMoved | AliasRefused | Pause | Reload | Stop
