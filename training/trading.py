"""Trading over past bars: many accounts side by side, through the very engine that trades.

Owns the loop (settle, observe, decide, submit: a worker's bar). An account has a seat: who decides,
on which dataset, from which row. Accounts may differ in all of these and in their rules; what
becomes of one never depends on who sits beside it. Keeps nothing; knows neither where a policy
comes from nor what its result decides.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np

from core.accounts import State, open_accounts
from core.bars import MarketRows
from core.blocks import BarBlocks
from core.engine import PackedMarket, Submission, recall, settle, submit
from core.errors import NotEnoughData
from core.fills import Fills
from core.portfolio import applied
from core.risk import Reason, Verdict
from core.rules import Rules
from features.account import account_features
from features.blocks import ObservationBlocks
from features.dataset import Dataset
from features.observation import observe, observe_rows
from features.scaler import Scaler
from registry.policy import Decision


class Decides(Protocol):
    """A ``registry.bundle.Bundle`` or ``registry.policy.Policy``."""

    def decide(self, observation: np.ndarray) -> Decision:
        """Answer observations (n, D) float32, each row by itself."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Seat:
    """Who decides for one account, and on what."""

    policy: Decides
    dataset: Dataset
    scaler: Scaler
    start: int  # row of its first bar
    # (rows of the dataset, n, d), unscaled: what is seen at each, newest last, by one account that
    # looks back on other rows than those before it (on bars, where its rows are parts of them).
    looks: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Imposed:
    """What a recorded session obeyed besides its policy, by bar; of one account."""

    rules: Mapping[int, Rules]  # other rules from this bar on
    cuts: Mapping[int, tuple[float, Reason]]  # whole shares its verdict was cut to, and why
    weights: Mapping[int, float] = field(default_factory=dict)  # asked in place of the policy
    recalls: Mapping[int, Sequence[bool]] = field(default_factory=dict)
    # after this bar its orders were taken back, once or more; true: and all shares sold
    seats: Mapping[int, Seat] = field(default_factory=dict)  # other versions from this bar on


class Traded(NamedTuple):
    """One bar of all accounts."""

    state: State  # at the close, before the decision
    fills: Fills
    observations: tuple[np.ndarray, ...]  # float32 (accounts, D), desk by desk
    decision: Decision
    verdict: Verdict


class _Desk:
    """Accounts that one policy decides for, in one call."""

    def __init__(self, seats: Sequence[Seat], begin: int, bars: int) -> None:
        self.policy = seats[0].policy
        self._accounts = slice(begin, begin + len(seats))
        self._view = _view(seats, bars)

    def observe(self, bar: int, account: np.ndarray) -> np.ndarray:
        """Return what its accounts see at the close of bar ``bar``, float32 (n, D)."""
        return self._view(bar, account[self._accounts])


View = Callable[[int, np.ndarray], np.ndarray]  # bar, account features (n, a) -> observations


def _view(seats: Sequence[Seat], bars: int) -> View:
    """Return what accounts of one scaler see, bar by bar."""
    starts, first = [seat.start for seat in seats], seats[0]
    if first.looks is not None:
        return _looking_back(first.looks, first)
    if len({id(seat.dataset) for seat in seats}) > 1:
        datasets = [seat.dataset for seat in seats]
        return ObservationBlocks(datasets, starts, first.scaler, bars).observe
    table, window = first.scaler.transform(first.dataset.table), first.dataset.spec.window
    start = np.array(starts)
    return lambda bar, account: np.asarray(observe_rows(table, start + bar, window, account))


def _looking_back(looks: np.ndarray, seat: Seat) -> View:
    window = looks.shape[1] - seat.scaler.look_back_rows

    def view(bar: int, account: np.ndarray) -> np.ndarray:
        scaled = seat.scaler.transform(looks[seat.start + bar])[-window:]
        return np.asarray(observe(scaled[None], account))

    return view


def trade(
    seats: Sequence[Seat],
    bars: int,
    rules: Rules,
    cash: float,
    late: np.ndarray | None = None,
    imposed: Imposed | None = None,
) -> Iterator[Traded]:
    """Open an account for every seat before its ``start`` and yield ``bars`` bars of all.

    The first decision falls at the close of the first bar, so the first fill at the next open.
    ``rules`` are numbers, or arrays of one row per seat. Accounts marked in ``late`` (n, 1) act on
    what was decided one bar before. ``imposed`` lives a recorded session of one account again.
    Raises ``NotEnoughData`` where a seat's rows lie in the warm-up or outside its dataset.
    """
    for seat in (*seats, *(imposed.seats.values() if imposed else ())):
        _check(seat, bars)
    market, desks = _market(seats, bars), _desks(seats, bars)
    state = open_accounts(len(seats), 1, cash)
    asked = np.full((len(seats), 1), np.nan)
    for bar in range(bars):
        rules = imposed.rules.get(bar, rules) if imposed else rules
        if imposed and bar in imposed.seats:
            taking_over = [imposed.seats[bar]]
            market, desks = _market(taking_over, bars), _desks(taking_over, bars)
        rows = market(bar)
        settled, fills = settle(state, rows, rules)
        account = account_features(settled, rows)
        observations = tuple(desk.observe(bar, account) for desk in desks)
        decision = _decide(desks, observations)
        if imposed and bar in imposed.weights:
            decision = replace(decision, weight=np.array([[imposed.weights[bar]]]))
        weight = decision.weight if late is None else np.where(late, asked, decision.weight)
        asked = decision.weight
        state, verdict = submit(settled, weight, rows, rules)
        if imposed and bar in imposed.cuts:
            state, verdict = applied(settled, Submission(state, verdict), *imposed.cuts[bar])
        for flat in imposed.recalls.get(bar, ()) if imposed else ():
            state = recall(state, flat)
        yield Traded(settled, fills, observations, decision, verdict)


def _check(seat: Seat, bars: int) -> None:
    dataset, stop = seat.dataset, seat.start + bars
    if seat.start < dataset.first_row or stop > len(dataset) or bars < 2:
        raise NotEnoughData(
            f"{dataset.symbol}: a backtest of rows {seat.start} to {stop} needs at least 2 "
            f"between {dataset.first_row} (warm-up) and {len(dataset)}"
        )


def _decide(desks: Sequence[_Desk], observations: Sequence[np.ndarray]) -> Decision:
    answers = [
        desk.policy.decide(observation)
        for desk, observation in zip(desks, observations, strict=True)
    ]
    if len(answers) == 1:
        return answers[0]
    return Decision(
        np.concatenate([answer.weight for answer in answers]),
        np.concatenate([answer.score for answer in answers]),
        np.concatenate([answer.confidence for answer in answers]),
    )


def _market(seats: Sequence[Seat], bars: int) -> Callable[[int], MarketRows]:
    """Return the bars of all seats, bar by bar."""
    if len({id(seat.dataset) for seat in seats}) > 1:
        markets = [seat.dataset.market for seat in seats]
        return BarBlocks(markets, [seat.start for seat in seats], bars).at
    market = PackedMarket.of(seats[0].dataset.market)
    start = np.array([seat.start for seat in seats])
    return lambda bar: market.at(start + bar)


def _desks(seats: Sequence[Seat], bars: int) -> list[_Desk]:
    """Put neighbours with one policy and one scaler at one desk."""
    desks: list[_Desk] = []
    begin = 0
    for _, group in groupby(seats, lambda seat: (id(seat.policy), id(seat.scaler))):
        members = list(group)
        desks.append(_Desk(members, begin, bars))
        begin += len(members)
    return desks
