"""The leak prover: change the future, and nothing that was known before may move by one bit.

Owns what is changed, and what is held against what. A *chain* is everything from bars to the gate's
inputs (``pipelines/chain.py``); a *cut* is a bar. After each cut the bars are made another
market's, put in another order, or taken away; every number the chain gives at or before the cut
must stay as it was. Two questions that such cuts cannot answer are asked of fills, where a chain
has any: one at the open must not know the rest of its bar, and what it costs must not be known when
it was decided.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.bars import BAR_COLUMNS
from core.errors import FutureLeak

OPENING = "fills at the open"  # the stage whose rows are known at the open of their bar
PRICE = "open_price"
CHANGED, SHUFFLED, DELETED = "changed", "put in another order", "taken away"
LATER_IN_BAR, NEVER_LATER = "changed after the open of its bar", "changed before it was filled"
SHOWN = 5  # columns named in one message


@dataclass(frozen=True, slots=True)
class World:
    """What a chain starts from: bar frames by dataset name, and the VIX's closes."""

    bars: Mapping[str, pd.DataFrame]
    vix: pd.Series | None = None


# Stage -> columns by time: what was known when. In the order of the chain: the first that
# differs is where a leak comes in.
Trace = Mapping[str, pd.DataFrame]
Chain = Callable[[World, pd.Timestamp], Trace]  # the world, and the cut that is looked at


@dataclass(frozen=True, slots=True)
class Leak:
    """One column that knows the future."""

    stage: str
    column: str
    cut: pd.Timestamp
    how: str  # what was done to the bars after the cut

    def __str__(self) -> str:
        if self.how == NEVER_LATER:
            return (
                f"{self.stage}: {self.column} of the decision at {self.cut:%Y-%m-%d %H:%M} does "
                "not depend on any later bar: it was filled at a price already known"
            )
        return (
            f"{self.stage}: {self.column} at or before {self.cut:%Y-%m-%d %H:%M} moves when the "
            f"bars after it are {self.how}"
        )


def prove(chain: Chain, world: World, cuts: Sequence[pd.Timestamp], seed: int = 0) -> list[Leak]:
    """Return every leak of the first stage that has one; empty where no cut finds any.

    A cut needs bars after it. The cost is five runs of the chain a cut, four without fills.
    """
    for cut in cuts:
        known = chain(world, cut)
        for how, future in _futures(world, cut, seed):
            again = chain(future, cut)
            found = _moved(known, again, cut, how)
            if not found and how == CHANGED and OPENING in known:
                found = _too_early(known, again, cut)
            if found:
                return found
        if OPENING in known:
            found = _inside(known, chain(_after_open(world, cut, seed), cut), cut)
            if found:
                return found
    return []


def require_none(
    chain: Chain, world: World, cuts: Sequence[pd.Timestamp], what: str, seed: int = 0
) -> None:
    """Raise ``FutureLeak`` naming the columns of ``what`` that know the future."""
    leaks = prove(chain, world, cuts, seed)
    if leaks:
        more = f" and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else ""
        columns = ", ".join(leak.column for leak in leaks[:SHOWN])
        one = len(leaks) == 1
        raise FutureLeak(
            f"{what}: {columns}{more} {'knows' if one else 'know'} the future; {leaks[0]}; take "
            f"what comes later out of how {'it is' if one else 'they are'} computed"
        )


def differing(known: Trace, again: Trace, cut: pd.Timestamp) -> list[str]:
    """Return the columns of the first stage in which two traces differ at or before the cut."""
    return [leak.column for leak in _moved(known, again, cut, "")]


def _moved(known: Trace, again: Trace, cut: pd.Timestamp, how: str) -> list[Leak]:
    """Return the columns of the first stage that differ in any bit at or before the cut."""
    for stage, before in known.items():
        past, now = before.loc[:cut], again[stage].loc[:cut]
        if not past.index.equals(now.index) or list(past) != list(now):
            return [Leak(stage, "its bars", cut, how)]
        moved = (_bits(past) != _bits(now)).any(axis=0)
        if moved.any():
            return [Leak(stage, str(name), cut, how) for name in past.columns[moved]]
    return []


def _inside(known: Trace, again: Trace, cut: pd.Timestamp) -> list[Leak]:
    """The bar at the cut had only opened: what filled at its open must stay."""
    found = _moved({OPENING: known[OPENING]}, again, cut, LATER_IN_BAR)
    earlier = {name: frame.loc[: cut - pd.Timedelta("1us")] for name, frame in known.items()}
    return found or _moved(earlier, {n: again[n].loc[: cut - pd.Timedelta("1us")] for n in again},
                           cut, LATER_IN_BAR)  # fmt: skip


def _too_early(known: Trace, again: Trace, cut: pd.Timestamp) -> list[Leak]:
    """What was decided at the cut fills later: its price must be one that could still change."""
    fills, others = (trace[OPENING][PRICE].loc[cut:].iloc[1:2] for trace in (known, again))
    if not len(fills) or not len(others) or not fills.iloc[0] or not others.iloc[0]:
        return []
    same = np.array_equal(_bits(fills), _bits(others))
    return [Leak(OPENING, PRICE, cut, NEVER_LATER)] if same else []


def _bits(values: "pd.DataFrame | pd.Series[float]") -> np.ndarray:
    """Return numbers as the integers of their bits: NaN equals NaN, and 0 is not -0."""
    return np.ascontiguousarray(values.to_numpy(np.float64)).view(np.int64)


def _futures(world: World, cut: pd.Timestamp, seed: int) -> Iterator[tuple[str, World]]:
    rng = np.random.default_rng(seed)
    yield CHANGED, _each(world, lambda bars: _another(bars, cut, rng))
    yield SHUFFLED, _each(world, lambda bars: _shuffled(bars, cut, rng))
    yield DELETED, _each(world, lambda bars: bars.loc[:cut])


def _each(world: World, change: Callable[[pd.DataFrame], pd.DataFrame]) -> World:
    vix = None if world.vix is None else change(world.vix.to_frame("close"))["close"]
    return World({name: change(bars) for name, bars in world.bars.items()}, vix)


def _another(bars: pd.DataFrame, cut: pd.Timestamp, rng: np.random.Generator) -> pd.DataFrame:
    """Another market after the cut: other prices and volumes, a split, a dividend."""
    later = np.flatnonzero(np.asarray(bars.index > cut))
    if not len(later):
        return bars
    level = rng.uniform(1.2, 2.0) * np.exp(np.cumsum(rng.normal(0.0, 0.02, len(later))))
    values = {name: bars[name].to_numpy(np.float64).copy() for name in bars}
    for name in {"open", "high", "low", "close"} & set(values):
        values[name][later] *= level
    if "volume" in values:
        values["volume"][later] = np.ceil(values["volume"][later] * 3.0) + 1e6
        values["split_ratio"][later] = 1.0
        values["split_ratio"][later[min(4, len(later) - 1)]] = 4.0
        values["dividend"][later] = 0.0
        values["dividend"][later[min(2, len(later) - 1)]] = 0.01 * values["close"][later[0]]
    return pd.DataFrame(values, index=bars.index)


def _shuffled(bars: pd.DataFrame, cut: pd.Timestamp, rng: np.random.Generator) -> pd.DataFrame:
    shuffled = bars.copy()
    later = np.flatnonzero(np.asarray(bars.index > cut))
    shuffled.iloc[later] = bars.iloc[rng.permutation(later)].to_numpy()
    return shuffled


def _after_open(world: World, cut: pd.Timestamp, seed: int) -> World:
    """The bar at the cut keeps its open, volume and actions, and becomes another after that."""
    rng = np.random.default_rng(seed)

    def change(bars: pd.DataFrame) -> pd.DataFrame:
        before = cut - pd.Timedelta("1us")
        changed = _another(bars, before, rng)
        if cut in changed.index and set(BAR_COLUMNS) <= set(changed):
            kept = ["open", "volume", "dividend", "split_ratio"]
            changed.loc[cut, kept] = bars.loc[cut, kept]
            opened = float(bars["open"].loc[cut])
            changed.loc[cut, ["high", "low", "close"]] = np.multiply((1.031, 0.973, 1.017), opened)
        return changed

    return _each(world, change)
