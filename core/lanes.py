"""Lanes: the numbers of a few accounts side by side, as vector instructions want them.

Owns how compiled loops move numbers between the arrays of ``n`` accounts, where those of one
account lie together, and two small scratch arrays, where number f of lane j lies at
f × LANES + j. There every distance is a constant, so that the compiler can see that the lanes do
not touch each other and work on eight accounts at a time. Knows no number's meaning.
"""

from typing import Any, NamedTuple

import numpy as np

from core.arrays import Array, elementwise

LANES = 16


class One(NamedTuple):
    """A single number of each account."""

    number: Array


@elementwise
def scratch(numbers: int) -> Array:
    """Return room for ``numbers`` of each lane."""
    return np.empty(numbers * LANES)


@elementwise
def fetch(given: Array, first: int, block: Array, begin: int, width: int, numbers: int) -> None:
    """Copy ``numbers`` of accounts ``begin`` … of a block (n, 1, numbers) to ``first`` … ."""
    for lane in range(width):
        for number in range(numbers):
            given[(first + number) * LANES + lane] = block[begin + lane, 0, number]


@elementwise
def fetch_rows(
    given: Array, first: int, table: Array, rows: Array, begin: int, width: int, numbers: int
) -> None:
    """Copy rows ``rows[begin]`` … of a table (T, 1, numbers) to numbers ``first`` … ."""
    for lane in range(width):
        row = min(max(rows[begin + lane], 0), len(table) - 1)
        for number in range(numbers):
            given[(first + number) * LANES + lane] = table[row, 0, number]


@elementwise
def fill(given: Array, first: int, block: Array, numbers: int) -> None:
    """Copy the ``numbers`` of a block (1, 1, numbers) to every lane."""
    for number in range(numbers):
        for lane in range(LANES):
            given[(first + number) * LANES + lane] = block[0, 0, number]


@elementwise
def deliver(made: Array, first: int, block: Array, begin: int, width: int, numbers: int) -> None:
    """Copy ``numbers`` from ``first`` … to accounts ``begin`` … of a block (n, 1, numbers)."""
    for lane in range(width):
        for number in range(numbers):
            block[begin + lane, 0, number] = made[(first + number) * LANES + lane]


def lane(kind: Any, given: Array, first: int, j: Any) -> Any:
    """Return numbers ``first`` … of lane ``j`` as the tuple ``kind``; in compiled code only."""
    raise NotImplementedError


def keep(made: Array, first: int, j: Any, values: tuple[Array, ...]) -> None:
    """Write what ``lane`` reads; in compiled code only."""
    raise NotImplementedError
