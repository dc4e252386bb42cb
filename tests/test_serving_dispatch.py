"""Dispatch: one sleeve's orders at a broker that answers late, twice or not at all, call by call.

The broker is a desk in memory that does as it is told here; the real one stands against a fake TWS
in the fault matrix.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from core import settings
from core.accounts import State, open_accounts
from core.errors import BrokerError, BrokerUnavailable
from core.rules import Rules
from serving import booking
from serving.brokers.port import WORKING, Execution, Leg, RemoteBroker, Report, Ticket
from serving.closing import intent_of, status_of
from serving.dispatch import Dispatch
from serving.ledger import Ledger, LedgerReader, rows

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
RULES = Rules.of(
    settings.Account(cash=100_000.0),
    settings.Costs(),
    settings.RiskLimits(
        stop_loss=0.1, take_profit=0.2, reduce_drawdown=None, halt_drawdown=None
    ),
)  # fmt: skip
FLAT = open_accounts(1, 1, 100_000.0)


def at(state: State, shares: float, price: float = 100.0) -> State:
    """Return a state that holds so many shares more, bought at a price, nothing else."""
    fill = Execution("x", "r", "a", "X", "entry", shares, price, 0.0, 0.0, MONDAY)
    return booking.book(state, [fill], RULES)


@dataclass
class Counter:
    """A broker in memory; ``said`` is what was asked of it, in order."""

    path: Path
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)  # after whose fate
    orders: dict[str, Report] = field(default_factory=dict)  # that ever arrived
    parts: dict[str, str] = field(default_factory=dict)
    prices: dict[str, float] = field(default_factory=dict)
    unbooked: list[Execution] = field(default_factory=list)
    away: str = ""  # asking for a fate, placing and cancelling fail
    forgets: str = ""  # to answer, once: an order of this leg, which arrives all the same
    crossing: float = 0.0  # shares that fill while the next cancel is on its way
    why_lost: str = ""
    strangers: float = 0.0
    restored: list[tuple[str, str]] = field(default_factory=list)
    remembered: tuple[Any, ...] = ()
    rules: Rules = RULES

    def _reach(self) -> None:
        if self.away:
            raise BrokerUnavailable(self.away)

    def place(self, ticket: Ticket) -> Report:
        self._reach()
        with LedgerReader(self.path) as ledger:
            (intent,) = ledger.rows(rows.Intent, order_ref=ticket.order_ref)
            levels = [one.price for one in ledger.rows(rows.Level, order_ref=ticket.order_ref)]
        assert intent.shares == ticket.shares
        assert levels == ([] if math.isnan(ticket.price) else [ticket.price])
        self.said.append(f"place {ticket.part} {ticket.shares:+g}")
        assert ticket.order_ref not in self.orders, "sent twice"
        self.parts[ticket.order_ref] = ticket.part
        self.prices[ticket.part] = ticket.price
        report = Report(ticket.order_ref, "submitted", 0.0, ticket.shares, "7")
        self.orders[ticket.order_ref] = report
        if self.forgets == ticket.leg:
            self.forgets = ""
            raise BrokerUnavailable("no answer")
        return report

    def cancel(self, order_ref: str) -> Report:
        self._reach()
        self.said.append(f"cancel {self.parts[order_ref]}")
        if self.crossing:
            self.fill(order_ref, self.crossing)
            self.crossing = 0.0
        known = self.orders[order_ref]
        self.orders[order_ref] = replace(known, status="cancelled", remaining=0.0)
        return self.orders[order_ref]

    def fate(self, ticket: Ticket) -> Report | None:
        self._reach()
        self.asked.append(ticket.part)
        return self.orders.get(ticket.order_ref)

    def open_orders(self) -> tuple[Report, ...]:
        return tuple(one for one in self.orders.values() if one.status in WORKING)

    def preview(self, agent: str, state: State, rules: Rules) -> State:
        self.rules = rules
        return booking.book(state, self.unbooked, rules)

    def lost(self, agent: str) -> str:
        return self.why_lost

    def unexplained(self, symbol: str) -> float:
        return self.strangers

    def restore(self, working: Sequence[tuple[Ticket, Report]], entries: Sequence[Ticket]) -> None:
        self.restored = [(ticket.part, report.status) for ticket, report in working]

    def remember(self, *known: Any) -> None:
        self.remembered = known

    def fill(self, order_ref: str, shares: float, price: float = 100.0) -> None:
        """Let an order fill, in part or whole."""
        known, leg = self.orders[order_ref], self.parts[order_ref].partition(".")[0]
        left = known.remaining - shares
        self.orders[order_ref] = replace(
            known, status="partial" if left else "filled", filled=known.filled + shares,
            remaining=left,
        )  # fmt: skip
        self.unbooked.append(
            Execution(str(len(self.unbooked)), order_ref, "a", "X", cast(Leg, leg), shares, price,
                      0.0, 0.0, MONDAY)
        )  # fmt: skip

    def working(self) -> list[str]:
        return sorted(self.parts[one.order_ref] for one in self.open_orders())

    def ref(self, part: str) -> str:
        (found,) = [ref for ref, one in self.parts.items() if one == part]
        return found


@dataclass
class Bench:
    """A dispatch, its broker and its ledger."""

    path: Path
    ledger: Ledger
    broker: Counter
    dispatch: Dispatch

    def restart(self) -> None:
        """Forget everything but the ledger and the broker."""
        self.broker.said.clear()
        self.dispatch = Dispatch(
            1, "a", "X", cast(RemoteBroker, self.broker), self.ledger, RULES
        )  # fmt: skip

    def order(self, shares: float, time: datetime = MONDAY, leg: Leg = "entry") -> Ticket:
        """Write an order down, as a sleeve does before it sends it."""
        kind = "market_on_open" if leg == "entry" else leg
        price = math.nan if leg == "entry" else 90.0
        ticket = Ticket(1, "a", "X", shares, time, leg, "1", kind, price)
        with self.ledger.transaction():
            self.ledger.add(intent_of(ticket))
        return ticket

    def send(
        self, ticket: Ticket | None, state: State, time: datetime = MONDAY,
        cancels: Sequence[str] = (),
    ) -> list[str]:  # fmt: skip
        return self.said(lambda: self.dispatch.send(cancels, ticket, state, time, "1"))

    def mind(self, state: State) -> list[str]:
        return self.said(lambda: self.dispatch.mind(state))

    def said(self, act: Callable[[], None]) -> list[str]:
        """Return what was asked of the broker meanwhile."""
        self.broker.said.clear()
        act()
        return list(self.broker.said)

    def bought(self, shares: float = 100.0) -> State:
        """Buy, fill, and protect the position; return the books of the next close."""
        ticket = self.order(shares)
        self.send(ticket, FLAT)
        self.broker.fill(ticket.order_ref, shares)
        self.mind(FLAT)
        self.broker.unbooked.clear()
        with self.ledger.transaction():  # as the close does
            self.ledger.add(status_of(1, self.broker.orders[ticket.order_ref], MONDAY))
        return at(FLAT, shares)

    def statuses(self) -> dict[str, str]:
        return {one.leg: one.status for one in self.ledger.rows(rows.Order)}

    def events(self) -> list[str]:
        return [one.kind for one in self.ledger.rows(rows.RiskEvent)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        with ledger.transaction():
            ledger.add(rows.Session(session=1, broker="ibkr", feed="test", mode="paper"))
        made = Bench(path, ledger, Counter(path), cast(Dispatch, None))
        made.restart()
        yield made


def test_stop_and_target_follow_the_fill_and_not_the_order(bench: Bench) -> None:
    ticket = bench.order(100.0)
    assert bench.send(ticket, FLAT) == ["place entry +100"]
    bench.broker.fill(ticket.order_ref, 40.0)
    assert bench.mind(FLAT) == [], "more may come"
    bench.broker.fill(ticket.order_ref, 60.0)
    assert bench.mind(FLAT) == ["place stop -100", "place target -100"]
    assert (bench.broker.prices["stop"], bench.broker.prices["target"]) == (90.0, 120.0)
    assert bench.mind(FLAT) == []
    assert bench.dispatch.rests
    assert bench.statuses() == {"entry": "submitted", "stop": "submitted", "target": "submitted"}
    assert bench.broker.asked == [], "what was answered need not be asked for"


def test_an_order_that_filled_before_it_was_asked_for_was_sent_and_is_protected(
    bench: Bench,
) -> None:
    bench.broker.forgets = "entry"
    ticket = bench.order(100.0)
    bench.send(ticket, FLAT)
    bench.broker.fill(ticket.order_ref, 100.0)
    assert bench.mind(FLAT) == ["place stop -100", "place target -100"]
    assert bench.statuses()["entry"] == "filled"
    assert bench.events() == ["order waits"], "it was not overtaken: it is the fill"


def test_what_may_have_been_sent_is_asked_for_and_not_sent_again(bench: Bench) -> None:
    bench.broker.forgets = "entry"
    ticket = bench.order(100.0)
    assert bench.send(ticket, FLAT) == ["place entry +100"]
    assert (bench.events(), bench.dispatch.rests) == (["order waits"], False)
    assert bench.statuses() == {"entry": "intended"}
    assert bench.mind(FLAT) == []  # ``place`` would refuse a second
    assert bench.statuses() == {"entry": "submitted"}
    assert bench.dispatch.rests


def test_what_never_left_is_sent_once_there_is_a_link(bench: Bench) -> None:
    bench.broker.away = "no link"
    ticket = bench.order(100.0)
    for _ in range(3):
        assert bench.send(ticket, FLAT) == [] if not bench.events() else bench.mind(FLAT) == []
    assert bench.events() == ["order waits"], "said once, however often it is tried"
    bench.broker.away = "another reason"
    bench.mind(FLAT)
    assert bench.events() == ["order waits"] * 2
    bench.broker.away = ""
    assert bench.mind(FLAT) == ["place entry +100"]
    bench.broker.away = "another reason"
    bench.send(None, FLAT, MONDAY + DAY, [ticket.order_ref])
    assert bench.events() == ["order waits"] * 3, "it had come back meanwhile"


@pytest.mark.parametrize("arrived", [False, True])
def test_an_order_that_another_replaced_is_never_sent_and_cancelled_where_it_was(
    bench: Bench, arrived: bool
) -> None:
    first, second = bench.order(100.0), bench.order(60.0, MONDAY + DAY)
    bench.broker.forgets = "entry" if arrived else ""
    bench.broker.away = "" if arrived else "no link"
    bench.send(first, FLAT)
    bench.broker.away = "no link"
    assert bench.send(second, FLAT, MONDAY + DAY) == []
    bench.broker.away = ""
    left = ["cancel entry"] if arrived else []
    assert bench.mind(FLAT) == [*left, "place entry +60"]
    ends = {one.order_ref: one.status for one in bench.ledger.rows(rows.Order)}
    assert ends == {first.order_ref: "cancelled", second.order_ref: "submitted"}
    assert bench.dispatch.rests


def test_what_filled_before_another_replaced_it_is_not_cancelled(bench: Bench) -> None:
    first, second = bench.order(100.0), bench.order(160.0, MONDAY + DAY)
    bench.broker.forgets = "entry"
    bench.send(first, FLAT)
    bench.broker.fill(first.order_ref, 100.0)
    said = bench.send(second, FLAT, MONDAY + DAY)
    assert said == ["place stop -100", "place target -100"], "nor is another sent blind"
    ends = {one.order_ref: one.status for one in bench.ledger.rows(rows.Order)}
    assert (ends[first.order_ref], ends[second.order_ref]) == ("filled", "cancelled")


def test_when_the_stop_has_filled_the_target_goes(bench: Bench) -> None:
    held = bench.bought()
    assert bench.mind(held) == []
    bench.broker.fill(bench.broker.ref("stop"), -100.0, 90.0)
    assert bench.mind(held) == ["cancel target"]
    assert bench.events() == []


def test_orders_of_other_sleeves_are_none_of_ours(bench: Bench) -> None:
    """All sleeves of an account see all its orders."""
    for leg in ("entry", "stop"):
        other = f"ratchet-1-b-20260302T000000-{leg}-1"
        bench.broker.orders[other] = Report(other, "submitted", 0.0, -70.0, "8")
        bench.broker.parts[other] = f"other {leg}"
    held = bench.bought()
    bench.broker.fill(bench.broker.ref("target"), -20.0, 120.0)
    assert bench.mind(held) == [
        "cancel stop", "cancel target", "place stop.1 -80", "place target.1 -80",
    ]  # fmt: skip


def test_an_order_is_not_sent_when_a_fill_came_first(bench: Bench) -> None:
    held = bench.bought()
    bench.broker.fill(bench.broker.ref("stop"), -100.0, 90.0)
    late = bench.order(50.0, MONDAY + DAY)
    assert "place entry +50" not in bench.send(late, held, MONDAY + DAY)
    assert bench.events() == ["order overtaken"]
    with LedgerReader(bench.path) as ledger:
        (word,) = ledger.rows(rows.OrderStatus, order_ref=late.order_ref)
    assert (word.status, word.filled, word.remaining) == ("cancelled", 0.0, 0.0)
    assert bench.dispatch.rests


def test_an_order_is_sent_on_the_shares_it_was_decided_on(bench: Bench) -> None:
    """Between closes a person's stop knows of more shares than the newest close."""
    bench.bought()
    held = FLAT  # the close before the fill
    bench.broker.unbooked.append(
        Execution("9", "r", "a", "X", "entry", 100.0, 100.0, 0.0, 0.0, MONDAY)
    )
    sale = bench.order(-100.0, MONDAY + DAY)
    bench.broker.said.clear()
    bench.dispatch.send((), sale, held, MONDAY + DAY, "1", held=100.0)
    assert bench.broker.said == ["cancel stop", "cancel target", "place entry -100"]


def test_what_shrinks_a_position_is_sent_when_stop_and_target_are_gone(bench: Bench) -> None:
    held = bench.bought()
    more = bench.order(50.0, MONDAY + DAY)
    assert bench.send(more, held, MONDAY + DAY) == ["place entry +50"]
    bench.broker.cancel(more.order_ref)
    less = bench.order(-30.0, MONDAY + 2 * DAY)
    said = bench.send(less, held, MONDAY + 2 * DAY)
    assert said == ["cancel stop", "cancel target", "place entry -30"]
    bench.broker.fill(less.order_ref, -30.0)
    assert bench.mind(held) == ["place stop -70", "place target -70"]


def test_a_cancel_that_was_confirmed_is_not_asked_for_again(bench: Bench) -> None:
    first = bench.order(100.0)
    bench.send(first, FLAT)
    second = bench.order(40.0, MONDAY + DAY)
    assert bench.send(second, FLAT, MONDAY + DAY, [first.order_ref]) == [
        "cancel entry", "place entry +40",
    ]  # fmt: skip
    third = bench.order(20.0, MONDAY + 2 * DAY)
    bench.broker.away = "no link"
    assert bench.send(third, FLAT, MONDAY + 2 * DAY, [second.order_ref]) == []
    assert not bench.dispatch.rests
    bench.broker.away = ""
    assert bench.mind(FLAT) == ["cancel entry", "place entry +20"]
    assert bench.mind(FLAT) == []


def test_a_fill_that_crosses_the_cancel_of_an_exit_is_looked_at_before_another(
    bench: Bench,
) -> None:
    held = bench.bought()
    bench.broker.fill(bench.broker.ref("target"), -20.0, 120.0)
    bench.broker.crossing = -30.0  # of the stop
    assert bench.mind(held) == ["cancel stop", "cancel target"]
    assert bench.mind(held) == ["place stop.1 -50", "place target.1 -50"]


def test_an_exit_that_may_have_arrived_is_found_and_both_are_renewed(bench: Bench) -> None:
    ticket = bench.order(100.0)
    bench.send(ticket, FLAT)
    bench.broker.fill(ticket.order_ref, 100.0)
    bench.broker.forgets = "stop"
    assert bench.mind(FLAT) == ["place stop -100"]
    assert not bench.dispatch.rests
    assert bench.mind(FLAT) == ["cancel stop", "place stop.1 -100", "place target.1 -100"]
    ends = bench.statuses()
    assert (ends["stop"], ends["target"]) == ("cancelled", "cancelled")
    assert bench.dispatch.rests


def test_exits_that_others_cancelled_come_back_at_the_next_close(bench: Bench) -> None:
    held = bench.bought()
    bench.broker.strangers = 50.0  # somebody else's shares explain nothing
    bench.mind(held)
    bench.broker.cancel(bench.broker.ref("stop"))
    for _ in range(2):
        assert bench.mind(held) == []
    assert bench.events() == ["exit gone"]
    bench.broker.cancel(bench.broker.ref("target"))
    assert bench.mind(held) == []
    assert bench.events() == ["exit gone"] * 2
    assert bench.send(None, held, MONDAY + DAY) == ["place stop -100", "place target -100"]


def test_where_a_person_wants_no_order_there_is_none(bench: Bench) -> None:
    held = bench.bought()
    bench.dispatch.bare = True
    assert bench.send(None, held, MONDAY + DAY) == ["cancel stop", "cancel target"]
    assert bench.mind(held) == []


def test_other_rules_protect_what_is_filled_from_then_on(bench: Bench) -> None:
    ticket = bench.order(100.0)
    bench.send(ticket, FLAT)
    bench.dispatch.live_by(RULES.but(stop_loss=0.05, take_profit=None))
    bench.broker.fill(ticket.order_ref, 100.0)
    assert bench.mind(FLAT) == ["place stop -100"]
    assert bench.broker.prices["stop"] == 95.0


def test_a_fate_that_nobody_can_know_stops_the_sleeve_for_good(bench: Bench) -> None:
    bench.broker.why_lost = "ratchet-1: may have filled on a day IBKR no longer tells"
    assert bench.send(bench.order(100.0), FLAT) == []
    bench.broker.why_lost = ""
    assert bench.mind(FLAT) == []
    assert bench.send(bench.order(50.0, MONDAY + DAY), FLAT, MONDAY + DAY) == []
    assert bench.events() == ["agent stopped"]
    assert not bench.dispatch.rests


def test_a_broker_that_refuses_outright_stops_the_sleeve(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(ticket: Ticket) -> Report:
        raise BrokerError("no such contract")

    monkeypatch.setattr(bench.broker, "place", refuse)
    bench.send(bench.order(100.0), FLAT)
    (event,) = bench.ledger.rows(rows.RiskEvent)
    assert (event.kind, event.agent, event.bar_time) == ("agent stopped", "a", MONDAY)
    assert event.detail.startswith("no such contract; it orders nothing until")


def test_before_the_first_close_there_is_nothing_to_mind(bench: Bench) -> None:
    assert bench.mind(at(FLAT, 100.0)) == []
    assert bench.dispatch.rests


def test_executions_of_this_sleeve_are_written_down_once(bench: Bench) -> None:
    mine = Execution("1.01", "r", "a", "X", "entry", 10.0, 100.0, 1.0, 0.0, MONDAY)
    other = replace(mine, exec_id="2.01", agent="b")
    bench.dispatch.hear([mine, other])
    bench.dispatch.hear([mine])
    assert [one.exec_id for one in bench.ledger.rows(rows.Executed)] == ["1.01"]


# -- after a restart


def recover(bench: Bench, state: State, time: datetime = MONDAY) -> None:
    bench.restart()
    bench.dispatch.recover(state, time, "1")


def test_an_order_of_the_newest_close_is_sent_after_a_restart_or_found(bench: Bench) -> None:
    first = bench.order(100.0)
    recover(bench, FLAT)
    assert not bench.dispatch.rests
    assert bench.mind(FLAT) == ["place entry +100"]
    second = bench.order(60.0, MONDAY + DAY)
    recover(bench, FLAT, MONDAY + DAY)
    assert bench.broker.restored == [("entry", "submitted")]
    assert bench.mind(FLAT) == ["cancel entry", "place entry +60"], "what it replaces goes first"
    bench.broker.forgets = "entry"
    third = bench.order(20.0, MONDAY + 2 * DAY)
    bench.send(third, FLAT, MONDAY + 2 * DAY, [second.order_ref])
    recover(bench, FLAT, MONDAY + 2 * DAY)
    assert bench.mind(FLAT) == []
    ends = {one.order_ref: one.status for one in bench.ledger.rows(rows.Order)}
    assert list(ends.values()) == ["cancelled", "cancelled", "submitted"]
    assert first.order_ref in ends


def test_an_order_that_grows_a_position_leaves_its_exits_after_a_restart(bench: Bench) -> None:
    held = bench.bought()
    bench.order(50.0, MONDAY + DAY)
    recover(bench, held, MONDAY + DAY)
    assert bench.mind(held) == ["place entry +50"]
    assert bench.broker.working() == ["entry", "stop", "target"]


def test_exits_that_a_sale_took_away_after_a_restart_come_back_when_it_fails(bench: Bench) -> None:
    """Our own cancels are nobody else's, though a stranger's shares lie on the account."""
    held = bench.bought()
    sale = bench.order(-30.0, MONDAY + DAY)
    bench.broker.strangers = 50.0
    recover(bench, held, MONDAY + DAY)
    assert bench.mind(held) == ["cancel stop", "cancel target", "place entry -30"]
    bench.broker.cancel(sale.order_ref)
    assert bench.mind(held) == ["place stop -100", "place target -100"]
    assert bench.events() == []


def test_an_exit_that_was_not_sent_is_no_decision_after_a_restart(bench: Bench) -> None:
    ticket = bench.order(100.0)
    bench.send(ticket, FLAT)
    bench.broker.fill(ticket.order_ref, 100.0)
    bench.broker.forgets = "stop"
    bench.mind(FLAT)
    bench.broker.unbooked.clear()
    with bench.ledger.transaction():
        bench.ledger.add(status_of(1, bench.broker.orders[ticket.order_ref], MONDAY))
    recover(bench, at(FLAT, 100.0))
    said = bench.mind(at(FLAT, 100.0))
    assert said == ["cancel stop", "place stop.1 -100", "place target.1 -100"]


def test_of_two_orders_of_the_newest_close_the_second_counts_after_a_restart(bench: Bench) -> None:
    """A person's stop writes another before the fate of the first is known."""
    first = bench.order(100.0)
    with bench.ledger.transaction():
        bench.ledger.add(intent_of(replace(first, shares=60.0, replica=1)))
    recover(bench, FLAT)
    assert bench.mind(FLAT) == ["place entry.1 +60"]
    assert bench.statuses() == {"entry": "cancelled", "entry.1": "submitted"}
    assert bench.dispatch.rests


@pytest.mark.parametrize("leg", ["stop", "target"])
def test_exits_that_were_not_acknowledged_are_found_after_a_restart(bench: Bench, leg: Leg) -> None:
    ticket = bench.order(100.0)
    bench.send(ticket, FLAT)
    bench.broker.fill(ticket.order_ref, 100.0)
    bench.broker.forgets = leg
    bench.mind(FLAT)
    with bench.ledger.transaction():
        bench.ledger.add(status_of(1, bench.broker.orders[ticket.order_ref], MONDAY))
    recover(bench, FLAT)
    again = ["cancel stop", "place stop.1 -100", "place target.1 -100"] if leg == "stop" else []
    assert bench.mind(FLAT) == again  # the target had arrived, both fit
    assert bench.statuses()["target"] == ("submitted" if leg == "target" else "cancelled")


def test_an_order_of_an_older_close_is_never_sent_after_a_restart(bench: Bench) -> None:
    bench.order(100.0)
    recover(bench, FLAT, MONDAY + DAY)
    assert not bench.dispatch.rests
    assert bench.mind(FLAT) == []
    assert bench.statuses() == {"entry": "cancelled"}


def test_exits_are_known_again_after_a_restart(bench: Bench) -> None:
    held = bench.bought()
    recover(bench, held, MONDAY + DAY)
    assert sorted(bench.broker.restored) == [("stop", "submitted"), ("target", "submitted")]
    assert bench.broker.remembered[2] == {("a", "X"): 100.0}
    assert bench.mind(held) == []
    assert bench.broker.working() == ["stop", "target"]


@pytest.mark.parametrize(("strangers", "told"), [(100.0, ["exit gone"]), (0.0, [])])
def test_exits_gone_since_before_a_restart_wait_for_a_close_where_shares_do_not_add_up(
    bench: Bench, strangers: float, told: list[str]
) -> None:
    """A split overnight leaves shares that the ledger cannot explain yet, and no exits."""
    held = bench.bought()
    for part in ("stop", "target"):
        bench.broker.cancel(bench.broker.ref(part))
    bench.broker.strangers = strangers
    recover(bench, held)
    said = bench.mind(held)
    assert said == ([] if told else ["place stop.1 -100", "place target.1 -100"])
    assert bench.events() == told


def test_orders_of_days_ago_are_forgotten_but_for_those_that_still_work(bench: Bench) -> None:
    held = bench.bought()
    refs = {part: bench.broker.ref(part) for part in ("entry", "stop")}
    working: Mapping[str, Report] = {
        ref: Report(ref, "submitted", 0.0, 1.0, "") for ref in refs.values()
    }
    assert bench.dispatch.entries(dict(working)).keys() == {refs["entry"]}
    for days in range(1, 5):
        bench.send(None, held, MONDAY + days * DAY)
    assert bench.dispatch.entries(dict(working)).keys() == {refs["entry"]}, "kept for four days"
    bench.send(None, held, MONDAY + 5 * DAY)
    assert bench.dispatch.entries(dict(working)) == {}
    assert bench.mind(held) == [], "stop and target are known as ours"
    assert (bench.broker.working(), bench.events()) == (["stop", "target"], [])
