"""Settings that may change while something trades: which of a new file are taken over.

Owns the list. Risk limits, limits across sleeves, alerts and the pace of a replay may; whatever
would make the bars behind and ahead incomparable (costs, features, symbols …) may not. Pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.settings import Params

SECTIONS = ("risk", "portfolio", "alerts")
KEYS = ("paper.bars_per_second",)


@dataclass(frozen=True, slots=True)
class Takeover:
    """What becomes of new settings."""

    params: Params  # from now on
    taken: Mapping[str, tuple[Any, Any]]  # by key: old, new
    refused: Mapping[str, tuple[Any, Any]]  # changed in the file, but not in flight

    def __str__(self) -> str:
        if not self.taken and not self.refused:
            return "nothing changed"
        words = [f"took over {_words(self.taken)}"] if self.taken else ["nothing taken over"]
        if self.refused:
            words.append(f"not while it runs, restart for {_words(self.refused)}")
        return "; ".join(words)


def take_over(old: Params, new: Params) -> Takeover:
    """Return what of ``new`` is taken over by something that runs with ``old``."""
    before, after = dict(_flat(old.model_dump())), dict(_flat(new.model_dump()))
    changed = {
        key: (before.get(key), after.get(key))
        for key in (*before, *(key for key in after if key not in before))
        if before.get(key) != after.get(key)
    }
    taken = {key: pair for key, pair in changed.items() if _may_change(key, old, new)}
    agents = {
        name: entry.model_copy(update={"limits": new.agents[name].limits})
        if name in new.agents
        else entry
        for name, entry in old.agents.items()
    }
    pace = {"bars_per_second": new.paper.bars_per_second}
    params = old.model_copy(
        update={
            **{name: getattr(new, name) for name in SECTIONS},
            "paper": old.paper.model_copy(update=pace),
            "agents": agents,
        }
    )
    return Takeover(params, taken, {key: p for key, p in changed.items() if key not in taken})


def _may_change(key: str, old: Params, new: Params) -> bool:
    section, *rest = key.split(".")
    if section == "agents":
        both = rest[0] in old.agents and rest[0] in new.agents
        return both and len(rest) > 1 and rest[1] == "limits"
    return section in SECTIONS or key in KEYS


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{key}.")
        else:
            yield key, value


def _words(changes: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} {_one(old)} -> {_one(new)}" for key, (old, new) in changes.items())


def _one(value: Any) -> str:
    return "none" if value is None else str(value)
