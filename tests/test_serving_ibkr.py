"""A sleeve at the IBKR broker, against the fake TWS: what goes wrong, and what must hold after it.

After every fault the ledger is held against the broker's own books (``audit``): no fill lost, no
order doubled, none sent before its intent was written, shares and cash the same.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fake_tws import FakeTws, Once, Point, Reply, Request
from fake_tws import Ticket as Typed
from ibkr_kit import FAST, SYMBOL, Market, Trading, audit, bars, events, market

from core.errors import BrokerUnavailable, ConfigError, NotAllowed
from serving.brokers.ibkr import Access, Pace, confirm_live

WEIGHTS = (0.9, float("nan"), 0.3, 0.9, 0.0, 0.0)
QUICK = replace(FAST, patience=0.3, connect=1.0)
FRAME = bars(30 + len(WEIGHTS))
PATIENCE_SECONDS = 10.0  # only ever spent by a test that fails


def until(trading: Trading, condition: Callable[[], bool]) -> None:
    """Hear what comes until a condition holds, as a worker does between bars."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing came of it"
        trading.hear()
        trading.broker.wait_for_news(0.02)
    trading.hear()


def linked(trading: Trading) -> None:
    """Wait for the link to be back, and for all that waited for it to be settled."""

    def caught_up() -> bool:
        try:
            trading.caught_up()
        except BrokerUnavailable:
            return False
        return True

    until(trading, caught_up)


def play_session(trading: Trading, found: Market) -> None:
    """Play the open and the day of the next session; its close is the caller's."""
    for phase in (0, 1):
        found.play(trading.place, phase)
        linked(trading)


def play_on(trading: Trading, found: Market, until_place: int | None = None) -> None:
    """Live through whole sessions, whatever becomes of the link meanwhile."""
    while trading.place < (until_place or len(trading.frame)):
        play_session(trading, found)
        trading.close_bar()
        linked(trading)


def nothing(tws: FakeTws) -> None:
    """What heals by itself."""


@dataclass(frozen=True)
class Fault:
    name: str
    strike: Callable[[FakeTws], None]
    says: str = ""  # an event that must be there
    heal: Callable[[FakeTws], None] = nothing


def said(fault: Fault, root: Path, before: int) -> bool:
    """Whether the ledger has the fault's event among those after the first ``before``."""
    return any(fault.says in event for event in ["", *events(root)[before:]])


def answer_nothing(kind: Request) -> Callable[[FakeTws], None]:
    return lambda tws: tws.faults.unanswered.add(kind)


def answer_again(tws: FakeTws) -> None:
    tws.faults.unanswered.clear()


FAULTS = [
    Fault("link drops while idle", lambda tws: tws.drop(), "link down"),
    Fault("link drops before an order", lambda tws: tws.faults.drop_at(Point.ORDER_ARRIVED),
          "link down"),
    Fault("link drops after the order, before its acknowledgement",
          lambda tws: tws.faults.drop_at(Point.ORDER_ACCEPTED), "link down"),
    Fault("link drops after the acknowledgement",
          lambda tws: tws.faults.drop_at(Point.ORDER_ACKNOWLEDGED), "link down"),
    Fault("link drops three orders running",
          lambda tws: tws.faults.drop_at(Point.ORDER_ACCEPTED, 3), "link down"),
    Fault("link drops before a fill", lambda tws: tws.faults.drop_at(Point.BEFORE_FILL),
          "link down"),
    Fault("link drops before a cancel", lambda tws: tws.faults.drop_at(Point.CANCEL_ARRIVED),
          "link down"),
    Fault("link drops after a cancel", lambda tws: tws.faults.drop_at(Point.CANCEL_ACCEPTED),
          "link down"),
    Fault("gateway freezes", lambda tws: tws.freeze(), "link down", lambda tws: tws.thaw()),
    Fault("gateway loses IBKR, then subscriptions (1100, 1101)", lambda tws: tws.announce(1100),
          "1100", lambda tws: tws.announce(1101)),
    Fault("gateway loses IBKR, keeps subscriptions (1100, 1102)", lambda tws: tws.announce(1100),
          "1100", lambda tws: tws.announce(1102)),
    Fault("server connection breaks (2110)", lambda tws: tws.announce(2110), "2110",
          lambda tws: tws.announce(1102)),
    Fault("socket port is reset (1300)", lambda tws: tws.announce(1300), "1300"),
    Fault("order is rejected", lambda tws: tws.faults.once(Once.REJECT), "order refused"),
    Fault("order is invalid and dead (321)", lambda tws: tws.faults.once(Once.INVALID),
          "order refused"),
    Fault("live order is called cancelled (10349)", lambda tws: tws.faults.once(Once.PRESET)),
    Fault("order is stuck: IBKR says nothing", lambda tws: tws.faults.once(Once.STUCK)),
    Fault("first status lacks the permId", lambda tws: tws.faults.once(Once.NO_PERM_ID)),
    Fault("cancel is ignored", lambda tws: tws.faults.once(Once.IGNORE_CANCEL), "order waits"),
    Fault("fill crosses the cancel", lambda tws: tws.faults.once(Once.FILL_ON_CANCEL)),
    Fault("executions are told twice", lambda tws: tws.faults.doubled.add(Reply.EXECUTION)),
    Fault("statuses are told twice", lambda tws: tws.faults.doubled.add(Reply.ORDER_STATUS)),
    Fault("commissions come late", lambda tws: tws.faults.held.add(Reply.COMMISSION_REPORT),
          heal=lambda tws: tws.release()),
    Fault("statuses come late and in reverse", lambda tws: tws.faults.held.add(Reply.ORDER_STATUS),
          heal=lambda tws: tws.release(newest_first=True)),
    Fault("open orders are not answered", answer_nothing(Request.ALL_OPEN_ORDERS),
          "order waits", answer_again),
    Fault("executions are not answered", answer_nothing(Request.EXECUTIONS), "order waits",
          answer_again),
    Fault("order ids are given out again", lambda tws: tws.exchange.forget_order_ids()),
    Fault("a person trades the same stock in TWS",
          lambda tws: tws.type_order(Typed(0, SYMBOL, "BUY", 50, "LMT", limit_price=1.0)) and None,
          "foreign order"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("place", [0, 2])
def test_a_fault_loses_nothing_and_doubles_nothing(
    fault: Fault, place: int, tmp_path: Path
) -> None:
    with market(tmp_path, FRAME) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, FRAME, WEIGHTS, pace=QUICK)
        try:
            play_on(trading, found, 30 + place)
            play_session(trading, found)
            before = len(events(tmp_path))  # a busy machine may have lost the link by itself
            found.remote.do(fault.strike)
            trading.close_bar()
            if fault.heal is not nothing:  # it lasts until it was noticed
                until(trading, lambda: said(fault, tmp_path, before))
            found.remote.do(fault.heal)
            linked(trading)
            play_on(trading, found)
        finally:
            trading.close()
        assert audit(tmp_path, found.exchange) == []
        assert said(fault, tmp_path, before)


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"TRADING_MODE": "live", "IB_ACCOUNT": "DU1234567"}, "is a paper account"),
        ({"IB_ACCOUNT": "U1234567"}, "is a live account"),
    ],
)
def test_mode_and_account_that_do_not_fit_are_refused(
    environment: dict[str, str], problem: str
) -> None:
    with pytest.raises(NotAllowed, match=problem):
        Access.from_environment(environment)


def test_an_account_is_never_shown_whole() -> None:
    with pytest.raises(NotAllowed) as caught:
        Access.from_environment({"IB_ACCOUNT": "U1234567"})
    assert "U1234567" not in str(caught.value)


def test_live_trading_needs_the_account_typed() -> None:
    live = Access.from_environment({"TRADING_MODE": "live", "IB_ACCOUNT": "U1234567"})
    with pytest.raises(NotAllowed, match="nothing was started"):
        confirm_live(live, "yes")
    confirm_live(live, "U1234567")


def test_a_port_that_is_no_number_is_named() -> None:
    with pytest.raises(ConfigError, match="IB_PORT=gateway"):
        Access.from_environment({"IB_PORT": "gateway"})


def test_the_account_at_the_gateway_decides_whether_trading_starts(tmp_path: Path) -> None:
    with market(tmp_path, FRAME) as found:
        assert found.remote is not None
        found.exchange.accounts = ("U7654321",)
        with pytest.raises(NotAllowed, match="TRADING_MODE=paper"):
            Trading(tmp_path, found.remote.port, FRAME, WEIGHTS, pace=QUICK)


def test_a_lost_link_is_told_within_a_minute() -> None:
    pace = Pace()
    assert pace.heartbeat + pace.patience < 60.0
    assert pace.remind <= 60.0


def test_a_correction_replaces_its_fill_and_its_fee_stays(tmp_path: Path) -> None:
    with market(tmp_path, FRAME) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, FRAME, WEIGHTS, pace=QUICK)
        try:
            play_on(trading, found, trading.place + 2)
            exec_id = next(iter(found.exchange.executions))
            found.remote.do(lambda tws: tws.correct(exec_id, price=70.0))
            linked(trading)
            play_on(trading, found)
        finally:
            trading.close()
        assert audit(tmp_path, found.exchange) == []


def test_a_sleeve_that_starts_again_goes_on_from_its_ledger(tmp_path: Path) -> None:
    with market(tmp_path, FRAME) as found:
        assert found.remote is not None
        while True:
            trading = Trading(tmp_path, found.remote.port, FRAME, WEIGHTS, pace=QUICK)
            try:
                if trading.place == len(FRAME):
                    break
                play_session(trading, found)
                trading.close_bar()
            finally:
                trading.close()
        assert audit(tmp_path, found.exchange) == []


def test_the_audit_finds_an_order_that_left_before_its_intent(tmp_path: Path) -> None:
    with market(tmp_path, FRAME) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, FRAME, WEIGHTS, pace=QUICK)
        try:
            order = Typed(1, SYMBOL, "BUY", 5, order_ref="ratchet-1-scripted-x-entry-1")
            found.remote.do(lambda tws: tws.exchange.place(7, order))
        finally:
            trading.close()
        wrong = audit(tmp_path, found.exchange)
        assert "ratchet-1-scripted-x-entry-1: sent before its intent was written" in wrong
        assert "ratchet-1-scripted-x-entry-1: not in the ledger" in wrong
