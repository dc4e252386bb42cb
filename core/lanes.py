"""Lanes: the numbers of a few accounts side by side, as vector instructions want them.

Owns how compiled loops move numbers between the arrays of ``n`` accounts, where those of one
account lie together, and two small scratch arrays, where number f of lane j lies at
f × LANES + j. There every distance is a constant, so that the compiler can see that the lanes do
not touch each other and work on eight accounts at a time. Knows no number's meaning.
"""

from typing import Any, NamedTuple

import numpy as np

from core.arrays import Array, elementwise
from core.squares import SIDE

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
    far = block.shape[2]
    if width == LANES and numbers >= SIDE:
        for lane in range(0, LANES, SIDE):
            for start in range(0, numbers, SIDE):
                number = min(start, numbers - SIDE)  # the last square may lie over the one before
                a = (begin + lane) * far + number
                b, c, d = a + far, a + 2 * far, a + 3 * far
                turn(block, a, b, c, d, given, (first + number) * LANES + lane, LANES)
        return
    for lane in range(width):
        for number in range(numbers):
            given[(first + number) * LANES + lane] = block[begin + lane, 0, number]


@elementwise
def fetch_rows(
    given: Array, first: int, table: Array, rows: Array, begin: int, width: int, numbers: int
) -> None:
    """Copy rows ``rows[begin]`` … of a table (T, 1, numbers) to numbers ``first`` … ."""
    last, far = len(table) - 1, table.shape[2]
    if width == LANES and numbers >= SIDE:
        for lane in range(0, LANES, SIDE):
            a = min(max(rows[begin + lane], 0), last) * far
            b = min(max(rows[begin + lane + 1], 0), last) * far
            c = min(max(rows[begin + lane + 2], 0), last) * far
            d = min(max(rows[begin + lane + 3], 0), last) * far
            for start in range(0, numbers, SIDE):
                number = min(start, numbers - SIDE)
                to = (first + number) * LANES + lane
                turn(table, a + number, b + number, c + number, d + number, given, to, LANES)
        return
    for lane in range(width):
        row = min(max(rows[begin + lane], 0), last)
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
    far = block.shape[2]
    if width == LANES and numbers >= SIDE:
        for lane in range(0, LANES, SIDE):
            for start in range(0, numbers, SIDE):
                number = min(start, numbers - SIDE)
                a = (first + number) * LANES + lane
                b, c, d = a + LANES, a + 2 * LANES, a + 3 * LANES
                turn(made, a, b, c, d, block, (begin + lane) * far + number, far)
        return
    for lane in range(width):
        for number in range(numbers):
            block[begin + lane, 0, number] = made[(first + number) * LANES + lane]


def turn(
    source: Array, a: Any, b: Any, c: Any, d: Any, made: Array, first: Any, distance: Any
) -> None:
    """Move a square of numbers, rows to columns (``core/squares.py``); in compiled code only."""
    raise NotImplementedError


def lane(kind: Any, given: Array, first: int, j: Any) -> Any:
    """Return numbers ``first`` … of lane ``j`` as the tuple ``kind``; in compiled code only."""
    raise NotImplementedError


def keep(made: Array, first: int, j: Any, values: tuple[Array, ...]) -> None:
    """Write what ``lane`` reads; in compiled code only."""
    raise NotImplementedError
