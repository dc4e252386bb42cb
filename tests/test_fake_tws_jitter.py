"""Jitter of the fake TWS: what may come in another order, and what may not."""

import asyncio
from datetime import UTC, datetime

from fake_tws import Exchange, Ticket, replies
from fake_tws.jitter import Jitter
from fake_tws.orders import Charged, Executed, Reported
from fake_tws.protocol import Inbox
from fake_tws.replies import Message

SEEDS = range(40)
NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)


def words() -> tuple[list[Message], list[Message]]:
    """Return what a fill pushes, and the answer to a question that was asked just after it."""
    exchange = Exchange(lambda: NOON)
    for order_id in (1, 2):
        exchange.place(7, Ticket(order_id, "AAPL", "BUY", 10, "LMT", limit_price=5.0 - order_id))
    (stock,), pushes = exchange.stocks, list[Message]()
    for event in exchange.trade("AAPL", 4.0):
        match event:
            case Executed(fill):
                pushes.append(replies.execution(-1, fill, stock, 178))
            case Charged(fill):
                pushes.append(replies.commission_report(fill))
            case Reported(order):
                pushes.append(replies.open_order(order, stock, 178))
                pushes.append(replies.order_status(order))
    (left,) = exchange.open_orders()
    answer = [replies.open_order(left, stock, 178), replies.order_status(left)]
    return pushes, [*answer, replies.open_order_end()]


def heard(seed: int) -> tuple[list[Message], list[bytes]]:
    """Return the messages as a client reads them, and the pieces they came in."""
    pieces: list[bytes] = []

    async def speak() -> None:
        pushes, answer = words()
        way = Jitter(seed, pauses=(0.0,)).way(1, pieces.append)
        for message in pushes:
            way.say(message, pushed=True)
        await asyncio.sleep(0)  # another moment
        for message in answer:
            way.say(message, pushed=False)
        while way.waits:
            await asyncio.sleep(0)

    asyncio.run(speak())
    inbox = Inbox()
    inbox._greeted = True
    return [tuple(fields) for piece in pieces for fields in inbox.feed(piece)], pieces


def test_every_message_arrives_once_and_whole_and_an_answer_keeps_its_order() -> None:
    pushes, answer = words()
    for seed in SEEDS:
        found, _ = heard(seed)
        assert sorted(found) == sorted([*pushes, *answer])
        assert [one for one in found if one in answer] == answer


def test_a_fee_comes_behind_its_execution_and_nothing_else_has_a_fixed_place() -> None:
    pushes, _ = words()
    orders = set()
    for seed in SEEDS:
        found = [one for one in heard(seed)[0] if one in pushes]
        kinds = [one[0] for one in found]
        assert kinds.index("11") < kinds.index("59")
        orders.add(tuple(kinds))
    assert len(orders) > 5


def test_a_push_falls_before_into_and_behind_the_answer_and_bytes_are_cut() -> None:
    places = set()
    for seed in SEEDS:
        found, pieces = heard(seed)
        answer = [found.index(one) for one in words()[1]]
        place = found.index(_of(words()[0], 3))
        places.add("before" if place < answer[0] else "in" if place < answer[-1] else "behind")
        assert len(pieces) > 1
    assert places == {"before", "in", "behind"}


def test_the_same_seed_says_the_same() -> None:
    assert heard(3) == heard(3)


def _of(messages: list[Message], kind: int) -> Message:
    return next(one for one in messages if one[0] == str(kind))
