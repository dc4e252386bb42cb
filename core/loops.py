"""The engine's loops: the books of all accounts, in machine code or operation by operation.

Owns where the numbers of an account lie in the arrays that ``core/engine.py`` is given, and their
way into the rules of ``core/books.py`` and back. Each loop there is twice, with the same result to
the last bit: ``…_each`` takes a few accounts at a time, compiled, ``…_all`` all of them at once.
Knows no rule.
"""

import numpy as np

from core.accounts import (
    ACCOUNT_NUMBERS,
    POSITION_NUMBERS,
    RECENT,
    Holding,
    Recent,
    Standing,
)
from core.arrays import Array, quietly, record, store
from core.bars import Bar
from core.books import close_books, settled, submitted
from core.compiled import compiled
from core.fills import EXITS, FILLED
from core.lanes import LANES, One, deliver, fetch, fetch_rows, fill, keep, lane, scratch
from core.risk import Judgement
from core.rules import Numbers

# How many numbers there are, and where the compiled loops keep them.
PRICES, RULES, VERDICT = len(Bar._fields), len(Numbers._fields), len(Judgement._fields)
HELD = ACCOUNT_NUMBERS
BAR = FILLS = HELD + POSITION_NUMBERS
NUMBERS = BAR + PRICES
ASKED = NUMBERS + RULES
GIVEN = ASKED + 1
JUDGED = POSITION_NUMBERS + VERDICT
SETTLED = FILLS + FILLED


@compiled
def submit_each(
    clock: float,
    account: Array,
    position: Array,
    weight: Array,
    table: Array,
    rows: Array,
    rules: Array,
    position_after: Array,
    verdict: Array,
) -> None:
    """Do for a few accounts at a time, in machine code, what ``submit_all`` does for all."""
    given, made = scratch(GIVEN), scratch(JUDGED)
    if len(rules) == 1:
        fill(given, NUMBERS, rules, RULES)
    for begin in range(0, len(account), LANES):
        width = min(LANES, len(account) - begin)
        fetch(given, 0, account, begin, width, ACCOUNT_NUMBERS)
        fetch(given, HELD, position, begin, width, POSITION_NUMBERS)
        fetch_rows(given, BAR, table, rows, begin, width, PRICES)
        fetch(given, ASKED, weight, begin, width, 1)
        if len(rules) > 1:
            fetch(given, NUMBERS, rules, begin, width, RULES)
        for j in range(np.uint64(width)):
            held, recent, judged = submitted(
                clock,
                lane(Standing, given, 0, j),
                lane(Holding, given, HELD, j),
                lane(Recent, given, HELD + RECENT, j),
                lane(One, given, ASKED, j).number,
                lane(Bar, given, BAR, j),
                lane(Numbers, given, NUMBERS, j),
            )
            keep(made, 0, j, held)
            keep(made, RECENT, j, recent)
            keep(made, POSITION_NUMBERS, j, judged)
        deliver(made, 0, position_after, begin, width, POSITION_NUMBERS)
        deliver(made, POSITION_NUMBERS, verdict, begin, width, VERDICT)


def submit_all(
    clock: float,
    account: Array,
    position: Array,
    weight: Array,
    bars: Array,
    rules: Array,
    position_after: Array,
    verdict: Array,
) -> None:
    """Do for all accounts at once, operation by operation, what ``submit_each`` does."""
    with quietly():
        held, recent, judged = submitted(
            clock,
            record(Standing, account),
            record(Holding, position),
            record(Recent, position, RECENT),
            weight,
            record(Bar, bars),
            record(Numbers, rules),
        )
    store(position_after, held)
    store(position_after, recent, RECENT)
    store(verdict, judged)


@compiled
def settle_each(
    clock: float,
    account: Array,
    position: Array,
    table: Array,
    rows: Array,
    rules: Array,
    account_after: Array,
    position_after: Array,
    fills: Array,
) -> None:
    """Do for a few accounts at a time, in machine code, what ``settle_all`` does for all."""
    given, made = scratch(GIVEN), scratch(SETTLED)
    if len(rules) == 1:
        fill(given, NUMBERS, rules, RULES)
    for begin in range(0, len(account), LANES):
        width = min(LANES, len(account) - begin)
        fetch(given, 0, account, begin, width, ACCOUNT_NUMBERS)
        fetch(given, HELD, position, begin, width, POSITION_NUMBERS)
        fetch_rows(given, BAR, table, rows, begin, width, PRICES)
        if len(rules) > 1:
            fetch(given, NUMBERS, rules, begin, width, RULES)
        for j in range(np.uint64(width)):
            standing, held, opening, exits = settled(
                clock,
                lane(Standing, given, 0, j),
                lane(Holding, given, HELD, j),
                lane(Bar, given, BAR, j),
                lane(Numbers, given, NUMBERS, j),
            )
            keep(made, 0, j, standing)
            keep(made, HELD, j, held)
            keep(made, HELD + RECENT, j, lane(Recent, given, HELD + RECENT, j))
            keep(made, FILLS, j, opening)
            keep(made, FILLS + EXITS, j, exits)
        deliver(made, 0, account_after, begin, width, ACCOUNT_NUMBERS)
        deliver(made, HELD, position_after, begin, width, POSITION_NUMBERS)
        deliver(made, FILLS, fills, begin, width, FILLED)


def settle_all(
    clock: float,
    account: Array,
    position: Array,
    bars: Array,
    rules: Array,
    account_after: Array,
    position_after: Array,
    fills: Array,
) -> None:
    """Do for all accounts at once, operation by operation, what ``settle_each`` does."""
    with quietly():
        standing, held, opening, exits = settled(
            clock,
            record(Standing, account),
            record(Holding, position),
            record(Bar, bars),
            record(Numbers, rules),
        )
    store(account_after, standing)
    store(position_after, held)
    store(position_after, record(Recent, position, RECENT), RECENT)
    store(fills, opening)
    store(fills, exits, EXITS)


@compiled
def mark_each(
    account: Array, position: Array, table: Array, rows: Array, rules: Array, account_after: Array
) -> None:
    """Let a few accounts at a time ``close_books``, in machine code; ``position`` is changed."""
    given, made = scratch(GIVEN), scratch(HELD + RECENT)
    if len(rules) == 1:
        fill(given, NUMBERS, rules, RULES)
    for begin in range(0, len(account), LANES):
        width = min(LANES, len(account) - begin)
        fetch(given, 0, account, begin, width, ACCOUNT_NUMBERS)
        fetch(given, HELD, position, begin, width, POSITION_NUMBERS)
        fetch_rows(given, BAR, table, rows, begin, width, PRICES)
        if len(rules) > 1:
            fetch(given, NUMBERS, rules, begin, width, RULES)
        for j in range(np.uint64(width)):
            before = lane(Standing, given, 0, j)
            standing, held = close_books(
                before,
                before.cash,
                lane(Holding, given, HELD, j),
                lane(Bar, given, BAR, j).close,
                lane(Numbers, given, NUMBERS, j),
            )
            keep(made, 0, j, standing)
            keep(made, HELD, j, held)
        deliver(made, 0, account_after, begin, width, ACCOUNT_NUMBERS)
        deliver(made, HELD, position, begin, width, RECENT)


def mark_all(
    account: Array, position: Array, bars: Array, rules: Array, account_after: Array
) -> None:
    """Let all accounts at once ``close_books``, as ``mark_each`` does; ``position`` is changed."""
    with quietly():
        before = record(Standing, account)
        standing, held = close_books(
            before,
            before.cash,
            record(Holding, position),
            record(Bar, bars).close,
            record(Numbers, rules),
        )
    store(account_after, standing)
    store(position, held)
