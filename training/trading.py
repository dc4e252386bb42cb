"""Trading over past bars: many accounts side by side, through the very engine that trades.

Owns the loop (settle, observe, decide, submit: a worker's bar). An account has a seat: who decides,
on which dataset, from which row. Accounts may differ in all of these and in their rules; what
becomes of one never depends on who sits beside it. Keeps nothing; knows neither where a policy
comes from nor what its result decides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np

from core.accounts import State, open_accounts
from core.engine import PackedMarket, settle, submit
from core.errors import NotEnoughData
from core.fills import Fills
from core.risk import Verdict
from core.rules import Rules
from features.account import account_features
from features.dataset import Dataset
from features.observation import observe_rows
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


class Traded(NamedTuple):
    """One bar of all accounts."""

    state: State  # at the close, before the decision
    fills: Fills
    observations: tuple[np.ndarray, ...]  # float32 (accounts, D), desk by desk
    decision: Decision
    verdict: Verdict


@dataclass(frozen=True, slots=True, eq=False)
class _Desk:
    """Accounts that one policy decides for, in one call."""

    policy: Decides
    accounts: slice
    table: np.ndarray  # float32 (rows, d), scaled, of all its datasets
    window: int
    start: np.ndarray  # int (accounts,), rows of ``table``

    def observe(self, bar: int, account: np.ndarray) -> np.ndarray:
        """Return what its accounts see at the close of bar ``bar``."""
        rows = self.start + bar
        return np.asarray(observe_rows(self.table, rows, self.window, account[self.accounts]))


def trade(
    seats: Sequence[Seat],
    bars: int,
    rules: Rules,
    cash: float,
    late: np.ndarray | None = None,
) -> Iterator[Traded]:
    """Open an account for every seat before its ``start`` and yield ``bars`` bars of all.

    The first decision falls at the close of the first bar, so the first fill at the next open.
    ``rules`` are numbers, or arrays of one row per seat. Accounts marked in ``late`` (n, 1) act on
    what was decided one bar before. Raises ``NotEnoughData`` where a seat's rows lie in the warm-up
    or outside its dataset.
    """
    for seat in seats:
        _check(seat, bars)
    market, start = _market(seats)
    desks = _desks(seats)
    state = open_accounts(len(seats), 1, cash)
    asked = np.full((len(seats), 1), np.nan)
    for bar in range(bars):
        rows = market.at(start + bar)
        settled, fills = settle(state, rows, rules)
        account = account_features(settled, rows)
        observations = tuple(desk.observe(bar, account) for desk in desks)
        decision = _decide(desks, observations)
        weight = decision.weight if late is None else np.where(late, asked, decision.weight)
        asked = decision.weight
        state, verdict = submit(settled, weight, rows, rules)
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


def _market(seats: Sequence[Seat]) -> tuple[PackedMarket, np.ndarray]:
    """Return every dataset's bars in one table, and where in it each seat begins."""
    datasets = list({id(seat.dataset): seat.dataset for seat in seats}.values())
    first = _firsts(datasets)
    tables = [PackedMarket.of(dataset.market).table for dataset in datasets]
    table = tables[0] if len(tables) == 1 else np.concatenate(tables)
    start = np.array([first[id(seat.dataset)] + seat.start for seat in seats])
    return PackedMarket(table), start


def _desks(seats: Sequence[Seat]) -> list[_Desk]:
    """Put neighbours with one policy and one scaler at one desk."""
    desks, begin = [], 0
    tables: dict[tuple[int, int], np.ndarray] = {}
    for _, group in groupby(seats, lambda seat: (id(seat.policy), id(seat.scaler))):
        members = list(group)
        datasets = {id(seat.dataset): seat.dataset for seat in members}
        scaler, first = members[0].scaler, _firsts(list(datasets.values()))
        scaled = []
        for name, dataset in datasets.items():
            key = (name, id(scaler))
            if key not in tables:
                tables[key] = scaler.transform(dataset.table)
            scaled.append(tables[key])
        desks.append(
            _Desk(
                policy=members[0].policy,
                accounts=slice(begin, begin + len(members)),
                table=scaled[0] if len(scaled) == 1 else np.concatenate(scaled),
                window=members[0].dataset.spec.window,
                start=np.array([first[id(seat.dataset)] + seat.start for seat in members]),
            )
        )
        begin += len(members)
    return desks


def _firsts(datasets: Sequence[Dataset]) -> dict[int, int]:
    """Return the first row of every dataset in a table of all, one after the other."""
    lengths = [len(dataset) for dataset in datasets]
    firsts = np.cumsum([0, *lengths[:-1]]).tolist()
    return {id(dataset): row for dataset, row in zip(datasets, firsts, strict=True)}
