"""The opening auction's cut-off: an order that comes too late is named, and never becomes another.

New York is five hours behind UTC until 8 March 2026, four from then on.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ibkr_kit import FAST, HISTORY_BARS, Trading, audit, bars, events, market

from serving.auction import cut_off
from serving.brokers.choice import make_broker
from serving.brokers.ibkr import Access, IbkrBroker, Pace
from serving.brokers.port import Ticket

WEIGHTS = (0.9, 0.9, 0.0, 0.0)
FRAME = bars(HISTORY_BARS + len(WEIGHTS))
FRIDAY = datetime(2026, 3, 6, tzinfo=UTC)


def ticket(day: datetime, kind: str = "market_on_open") -> Ticket:
    return Ticket(1, "agent", "AAPL", 10.0, day, "entry", "1", kind)


@pytest.mark.parametrize(
    ("day", "now", "late"),
    [
        (FRIDAY, datetime(2026, 3, 6, 21, 15, tzinfo=UTC), False),
        (FRIDAY, datetime(2026, 3, 9, 13, 27, 59, tzinfo=UTC), False),  # Monday, summer time
        (FRIDAY, datetime(2026, 3, 9, 13, 28, tzinfo=UTC), True),
        (datetime(2026, 3, 5, tzinfo=UTC), datetime(2026, 3, 6, 14, 27, tzinfo=UTC), False),
        (datetime(2026, 3, 5, tzinfo=UTC), datetime(2026, 3, 6, 14, 28, tzinfo=UTC), True),
        (datetime(2026, 2, 13, tzinfo=UTC), datetime(2026, 2, 17, 14, 27, tzinfo=UTC), False),
    ],
    ids=["evening", "just in time", "cut-off", "winter", "winter cut-off", "over a holiday"],
)
def test_the_cut_off_is_two_minutes_before_the_next_sessions_open(
    day: datetime, now: datetime, late: bool
) -> None:
    assert bool(cut_off("XNYS")(ticket(day), now)) is late


def test_only_orders_for_the_open_have_a_cut_off() -> None:
    far = datetime(2026, 6, 1, tzinfo=UTC)
    assert cut_off("XNYS")(ticket(FRIDAY), far).startswith(
        "the auction of 2026-03-09 took orders until 09:28 EDT, now it is 2026-05-31 20:00 EDT"
    )
    assert cut_off("XNYS")(ticket(FRIDAY, "market"), far) == ""
    assert cut_off("XNYS")(ticket(FRIDAY, "stop"), far) == ""


@pytest.mark.parametrize(("feed", "late"), [("ibkr", True), ("replay", False)])
def test_bars_of_the_present_have_a_cut_off_and_those_of_a_replay_none(
    feed: str, late: bool
) -> None:
    broker: Any = make_broker("ibkr", {}, feed=feed)
    too_late = broker._ordering._too_late
    assert bool(too_late(ticket(FRIDAY), datetime(2026, 6, 1, tzinfo=UTC))) is late


def test_a_late_order_is_not_sent_and_the_next_close_decides(tmp_path: Path) -> None:
    with market(tmp_path, FRAME) as found:
        assert found.remote is not None

        def broker(access: Access, pace: Pace) -> IbkrBroker:
            return IbkrBroker(access, pace, found.clock, cut_off("XNYS"))

        pace = replace(FAST, patience=2.0)
        trading = Trading(tmp_path, found.remote.port, FRAME, WEIGHTS, broker=broker, pace=pace)
        try:
            first = trading.place
            while trading.place < len(FRAME):
                for phase in (0, 1):
                    found.play(trading.place, phase)
                    trading.caught_up()
                if trading.place == first:  # the bar reaches us on the morning after
                    found.at = FRAME.index[first].to_pydatetime().replace(hour=14, minute=28)
                    found.at = found.at.replace(day=found.at.day + 1)
                trading.close_bar()
                trading.hear()
        finally:
            trading.close()
        sent = [order.ticket.order_ref for order in found.exchange.orders.values()]
    moments = [f"{moment:%Y%m%dT%H%M%S}" for moment in FRAME.index[first:]]
    assert not [ref for ref in sent if moments[0] in ref]
    assert [ref for ref in sent if moments[1] in ref and "-entry-" in ref]
    late = [text for text in events(tmp_path) if text.startswith("order too late")]
    assert len(late) == 1
    assert "took orders until 09:28 EST" in late[0]
    assert audit(tmp_path, found.exchange) == []
