"""The kill switch: pressed by file, command, signal or HTTP it stops all orders until a person
releases it, and the books of a stopped sleeve replay to the last bit."""

import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import serving_kit as world
from fake_tws import Ticket as Typed
from ibkr_kit import SYMBOL, Trading, audit, market

from core.errors import ConfigError, NotAllowed, StorageError
from core.home import Home
from flows import cli
from serving import switch
from serving.alerts import KILLED, RELEASED
from serving.feeds import ReplayFeed
from serving.history import FeedBar, Instrument
from serving.ledger import Ledger, LedgerReader, rows
from serving.session import session_event
from serving.switch import POLICIES, Policy
from serving.switch_page import SwitchPage, page_of
from serving.worker import Worker

NOW = datetime(2026, 3, 2, 15, tzinfo=UTC)
TOKEN = "a token of some length"
DEADLINE_SECONDS = 30.0  # only ever spent by a test that fails


def test_a_press_is_durable_and_says_who_and_why(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert switch.pressed(home) is None
    made = switch.press(home, "A. Turing", "fills look wrong", NOW, "flatten")
    assert switch.pressed(home) == made
    assert made.words == "by A. Turing at 2026-03-02T15:00:00+00:00: fills look wrong"
    assert switch.release(home, "G. Hopper", "mended", NOW) == made
    assert switch.pressed(home) is None
    lines = [json.loads(line) for line in (home.root / "kill.log").read_text().splitlines()]
    assert [(one["what"], one["by"]) for one in lines] == [
        ("pressed", "A. Turing"),
        ("released", "G. Hopper"),
    ]


@pytest.mark.parametrize("content", ["", "stop", '{"at": 3}', '{"policy": "sell", "at": "", "by'])
def test_any_file_of_that_name_stops(tmp_path: Path, content: str) -> None:
    home = Home(tmp_path)
    home.kill.write_text(content)
    found = switch.pressed(home)
    assert found is not None
    assert found.policy is None
    assert "put there by hand" in found.reason


def test_it_is_released_by_a_named_person_and_only_when_on(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(NotAllowed, match="not on"):
        switch.release(home, "A. Turing", "", NOW)
    switch.press(home, "x", "", NOW)
    with pytest.raises(NotAllowed, match="a named person"):
        switch.release(home, "  ", "", NOW)
    assert switch.pressed(home)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    with pytest.raises(StorageError, match=r"nothing was stopped; make it by hand: `touch"):
        switch.press(Home(tmp_path / "home"), "x", "", NOW)


def test_the_command_presses_and_releases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    assert cli.main(["kill", "--reason", "drill", "--policy", "hold"]) == 0
    said = capsys.readouterr().out
    assert "trading is stopped, policy hold" in said
    assert "no worker runs here" in said
    assert cli.main(["release", "--by", "A. Turing", "--reason", "drill over"]) == 0
    assert "released; it had been pressed by" in capsys.readouterr().out
    with Ledger(tmp_path / "ledger.db") as ledger, ledger.transaction():
        of: dict[str, Any] = {"session": 1, "agent": "", "bar_time": None}
        ledger.add(rows.Session(session=1, broker="ibkr", feed="ibkr", mode="paper"))
        ledger.add(session_event(1, "started"))
        ledger.add(rows.RiskEvent(**of, kind="gateway fenced", detail="it hung; solo: flatten"))
    assert cli.main(["kill", "--reason", "drill"]) == 0
    assert re.search(r"saw to its orders at 20.*: it hung; solo: flatten", capsys.readouterr().out)
    with Ledger(tmp_path / "ledger.db") as ledger, ledger.transaction():
        ledger.add(session_event(1, "started"))
    assert cli.main(["kill", "--reason", "drill"]) == 0
    assert "stay there until one is started" in capsys.readouterr().out
    assert cli.main(["release", "--by", "A. Turing", "--reason", "drill over"]) == 0
    capsys.readouterr()
    assert cli.main(["release", "--by", "A. Turing", "--reason", "again"]) != 0
    assert "the kill switch is not on" in capsys.readouterr().err


def ask(address: str, token: str = TOKEN, body: bytes | None = None) -> dict[str, Any]:
    request = urllib.request.Request(address, data=body)
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=5) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


@pytest.fixture
def page(tmp_path: Path) -> Iterator[SwitchPage]:
    made = SwitchPage(Home(tmp_path), TOKEN, 0, lambda: NOW)
    yield made
    made.close()


def test_a_request_with_the_token_presses_it(tmp_path: Path, page: SwitchPage) -> None:
    assert ask(page.address)["on"] is False
    body = json.dumps({"by": "pager", "reason": "drawdown", "policy": "flatten"}).encode()
    assert ask(page.address, body=body)["on"] is True
    found = switch.pressed(Home(tmp_path))
    assert found == switch.Press("2026-03-02T15:00:00+00:00", "pager", "drawdown", "flatten")
    assert "by pager" in ask(page.address)["words"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"policy": "sell"}'])
def test_an_odd_request_with_the_token_stops_all_the_same(
    tmp_path: Path, page: SwitchPage, body: bytes
) -> None:
    assert ask(page.address, body=body)["on"] is True
    assert switch.pressed(Home(tmp_path))


def test_a_request_without_the_token_does_nothing(tmp_path: Path, page: SwitchPage) -> None:
    for token in ("", "wrong"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(page.address, token, b"{}")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask(page.address.replace("/kill", "/release"), body=b"{}")
    assert switch.pressed(Home(tmp_path)) is None


def test_the_page_is_there_only_with_a_good_token_and_a_free_port(
    tmp_path: Path, page: SwitchPage
) -> None:
    def opened(**environment: str) -> SwitchPage | None:
        return page_of(Home(tmp_path), environment, lambda: NOW)

    assert opened() is None
    with pytest.raises(ConfigError, match="expected 16 characters or more"):
        opened(RATCHET_KILL_TOKEN="short")
    with pytest.raises(ConfigError, match="RATCHET_KILL_PORT=x"):
        opened(RATCHET_KILL_TOKEN=TOKEN, RATCHET_KILL_PORT="x")
    taken = page.address.split(":")[2].partition("/")[0]
    with pytest.raises(ConfigError, match=f"RATCHET_KILL_PORT={taken}: .*name a free port"):
        opened(RATCHET_KILL_TOKEN=TOKEN, RATCHET_KILL_PORT=taken)


# -- a worker on paper


class Directed(ReplayFeed):
    """Does something before a step, when the worker has lived through every step before."""

    def __init__(self, home: Home) -> None:
        super().__init__(world.market(), world.PAPER_BARS)
        self.home = home
        self.acts: Mapping[int, Callable[[], None]] = {}

    def stream(
        self, after: Mapping[Instrument, datetime], stop: Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        steps = list(super().stream(after, stop))
        for number, bars in enumerate(steps, start=world.PAPER_BARS - len(steps)):
            if act := self.acts.get(number):
                until(lambda lived=number: len(rows_of(self.home, rows.Equity)) == lived)
                act()
            yield bars


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rows_of(home: Home, row: type[rows.RowType], **equals: Any) -> list[rows.RowType]:
    with LedgerReader(home.ledger) as ledger:
        return ledger.rows(row, **equals)


def told(home: Home) -> list[str]:
    return [event.kind for event in rows_of(home, rows.RiskEvent, agent="")]


def serve(
    root: Path, acts: Callable[[Worker, Home], Mapping[int, Callable[[], None]]], **agent: Any
) -> Home:
    """Trade SOLO on paper with snapshots so rare that a restart replays all of it."""
    home = Home(root / "home")
    solo = {"symbol": "SOLO", "limits": {"stop_loss": 0.03}, **agent}
    settings = world.params(
        agents={"solo": solo}, paper={"alias_poll_seconds": 0.05, "snapshot_seconds": 3_600.0}
    )
    shelf = world.FolderShelf(root / "shelf")
    if not (root / "shelf").exists():
        shelf.publish(settings, "solo", "1", 11)
        shelf.point("solo", "1")
    feed = Directed(home)
    worker = Worker(home, settings, ("solo",), feed, shelf=shelf, environment={})
    feed.acts = acts(worker, home)
    worker.run()
    return home


def pressing(home: Home, policy: Policy | None = None) -> Callable[[], None]:
    def act() -> None:
        before = len(rows_of(home, rows.Intervention))
        switch.press(home, "A. Turing", "drill", NOW, policy)
        until(lambda: len(rows_of(home, rows.Intervention)) > before)

    return act


@pytest.mark.parametrize("policy", POLICIES)
def test_a_stopped_sleeve_orders_nothing_and_its_books_replay_after_a_restart(
    tmp_path: Path, policy: Policy
) -> None:
    def pressed_then_stopped(worker: Worker, home: Home) -> dict[int, Callable[[], None]]:
        return {12: pressing(home, policy), 20: worker.stop}

    home = serve(tmp_path, pressed_then_stopped)
    (stop,) = rows_of(home, rows.Intervention)
    assert (stop.policy, stop.detail) == (
        policy,
        "by A. Turing at 2026-03-02T15:00:00+00:00: drill",
    )
    later = [i for i in rows_of(home, rows.Intent) if i.bar_time > stop.bar_time]
    entries = [intent for intent in later if intent.leg.startswith("entry")]
    if policy != "flatten":
        assert entries == []
    assert all(intent.shares <= 0.0 for intent in entries)  # what the open had no volume for
    lived = len(rows_of(home, rows.Equity))
    assert lived < world.PAPER_BARS

    def released(worker: Worker, home: Home) -> dict[int, Callable[[], None]]:
        def release() -> None:
            assert told(home).count(KILLED) == 1  # a restart does not press it again
            switch.release(home, "G. Hopper", "drill over", NOW)
            until(lambda: RELEASED in told(home))

        return {28: release}

    serve(tmp_path, released)  # replays, or raises CorruptFile
    books = rows_of(home, rows.Equity)
    assert len(books) == world.PAPER_BARS
    if policy == "flatten":
        assert {book.shares for book in books[20:28]} == {0.0}
    moment = books[27].bar_time
    again = [i for i in rows_of(home, rows.Intent) if i.bar_time > moment]
    assert again, "trading goes on after the release"
    verdicts = {v.bar_time: v for v in rows_of(home, rows.Verdict)}
    assert f"kill switch: {policy}" in verdicts[books[15].bar_time].words


def test_a_sleeve_is_flattened_from_the_very_next_open(tmp_path: Path) -> None:
    held: list[float] = []

    def acts(worker: Worker, home: Home) -> dict[int, Callable[[], None]]:
        def act() -> None:
            shares = rows_of(home, rows.Equity)[-1].shares
            if shares and not held:
                pressing(home)()
            if shares:
                held.append(shares)

        return dict.fromkeys(range(1, world.PAPER_BARS), act)

    home = serve(tmp_path, acts, when_stopped="flatten")
    assert held, "or the test says nothing"
    (stop,) = rows_of(home, rows.Intervention)
    (order,) = [i for i in rows_of(home, rows.Intent) if i.leg == "entry.1"]
    assert (order.bar_time, order.shares, order.kind) == (stop.bar_time, -held[0], "market")
    fills = [fill for fill in rows_of(home, rows.Fill) if fill.order_ref == order.order_ref]
    times = [book.bar_time for book in rows_of(home, rows.Equity)]
    assert fills[0].bar_time == times[times.index(stop.bar_time) + 1]


def test_the_signal_presses_it(tmp_path: Path) -> None:
    def acts(worker: Worker, home: Home) -> dict[int, Callable[[], None]]:
        def act() -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            until(lambda: KILLED in told(home))

        return {5: act, 7: worker.stop}

    home = serve(tmp_path, acts)
    found = switch.pressed(home)
    assert found is not None
    assert found.by == "SIGUSR1"


def test_one_pressed_before_the_start_lets_nothing_out(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    switch.press(home, "A. Turing", "holiday", NOW)
    serve(tmp_path, lambda worker, home: {10: worker.stop})
    assert rows_of(home, rows.Intent) == []
    assert KILLED in told(home)


def test_one_released_while_nobody_traded_is_in_the_ledger(tmp_path: Path) -> None:
    home = serve(tmp_path, lambda worker, home: {8: pressing(home), 10: worker.stop})
    switch.release(home, "G. Hopper", "drill over", NOW)
    for step in (12, 14):
        serve(tmp_path, lambda worker, home, end=step: {end: worker.stop})  # type: ignore[misc]
        assert told(home) == [KILLED, RELEASED]


# -- at Interactive Brokers


@pytest.mark.parametrize("attempt", ["at once", "at the close"])
def test_shares_are_sold_at_once_and_what_that_left_at_the_next_close(
    tmp_path: Path, attempt: str
) -> None:
    """Each of the two attempts alone must sell everything; the other is kept from helping."""
    with market(tmp_path) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, found.frame)

        def opens() -> None:
            found.play(trading.place, 0)
            trading.caught_up()

        def closes() -> None:
            found.play(trading.place, 1)
            trading.caught_up()
            trading.close_bar()
            trading.caught_up()

        def held() -> float:
            return sum(one.shares for one in found.exchange.positions.values())

        try:
            while not held():
                opens()
                closes()
            trading.sleeve.stop("flatten", "drill")
            trading.caught_up()
            if attempt == "at once":
                found.remote.do(lambda tws: tws.trade(SYMBOL, found.exchange.prices[SYMBOL]))
                assert held() == 0.0
                return
            found.remote.do(lambda tws: tws.end_session())  # the order for today dies unfilled
            ours = [one for one in found.exchange.orders.values() if not one.done]
            for order in ours:
                found.remote.do(lambda tws, o=order: tws.cancel_by_hand(o.perm_id))
            trading.caught_up()
            assert held() > 0.0
            before = {one.order_ref for one in rows_in(tmp_path)}
            trading.close_bar()
            trading.caught_up()
            (again,) = [one for one in rows_in(tmp_path) if one.order_ref not in before]
            assert (again.shares, again.leg) == (-held(), "entry")
            opens()
            assert held() == 0.0
        finally:
            trading.close()


def rows_in(root: Path) -> list[rows.Intent]:
    with LedgerReader(root / "ledger.db") as ledger:
        return ledger.rows(rows.Intent)


@pytest.mark.parametrize("policy", POLICIES)
def test_at_the_broker_only_what_the_ledger_owns_is_cancelled_and_sold(
    tmp_path: Path, policy: Policy
) -> None:
    typed = Typed(0, SYMBOL, "BUY", 50, "LMT", limit_price=1.0)
    with market(tmp_path) as found:
        assert found.remote is not None
        trading = Trading(tmp_path, found.remote.port, found.frame)

        def session() -> None:
            for phase in (0, 1):
                found.play(trading.place, phase)
                trading.caught_up()
            trading.close_bar()
            trading.caught_up()

        def working() -> set[str]:
            orders = [o.ticket.order_ref for o in found.exchange.orders.values() if not o.done]
            return {ref.split("-")[-2].partition(".")[0] for ref in orders if ref}

        try:
            while not {"stop", "target"} <= working():
                session()
            found.remote.do(lambda tws: tws.type_order(typed) and None)
            trading.sleeve.stop(policy, "drill")
            trading.caught_up()
            left = {"hold": set(), "protect": {"stop", "target"}, "flatten": {"entry"}}
            assert working() == left[policy]
            session()
            session()
            shares = float(trading.sleeve.state.shares[0, 0])
            assert (shares == 0.0) == (policy == "flatten")
            foreign = [o for o in found.exchange.orders.values() if not o.ticket.order_ref]
            assert [order.done for order in foreign] == [False]
        finally:
            trading.close()
        assert audit(tmp_path, found.exchange) == []
