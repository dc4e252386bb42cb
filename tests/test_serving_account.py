"""Several sleeves on one account: limits across them clip, are logged, and are replayed."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serving_kit as world
from test_serving_parity import dataset_of

from core.home import Home
from core.risk import Reason
from core.settings import Params
from pipelines.certificate import certificate_of, recorded
from serving.brokers.paper import PaperBroker
from serving.brokers.port import Report, Ticket
from serving.feeds import ReplayFeed
from serving.history import FeedBar
from serving.ledger import LedgerReader, rows
from serving.metrics import Meters
from serving.session import rules_of
from serving.watch import Watch
from serving.worker import Worker

LIMITS = {"max_exposure": 0.40, "max_symbol": 0.35, "allocation": {"solo": 0.15}}


AGENTS = {
    "solo": {"symbol": "SOLO", "limits": {"stop_loss": 0.03}},
    "fund": {"symbol": "FUND"},
    "twin": {"symbol": "SOLO"},
}


def settings(**sections: object) -> Params:
    return world.params(agents=AGENTS, **{"portfolio": LIMITS} | sections)


def shelf_of(root: Path, params: Params) -> world.FolderShelf:
    shelf = world.FolderShelf(root)
    for seed, agent in enumerate(AGENTS, 11):
        shelf.publish(params, agent, "1", seed)
        shelf.point(agent, "1")
    return shelf


def lived(root: Path, params: Params, agents: Sequence[str]) -> Home:
    shelf, home = shelf_of(root / "shelf", params), Home(root / "home")
    Worker(home, params, agents, world.feed(), shelf=shelf, environment={}).run()
    return home


def rows_of(home: Home, row: type[rows.RowType], **equals: object) -> list[rows.RowType]:
    with LedgerReader(home.ledger) as ledger:
        return ledger.rows(row, **equals)


class Interrupted(Worker):
    """Ends after a few steps, and leaves no more behind than if it had been killed."""

    steps = 7

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named, desk=world.CountingDesk(self._lived))

    def _lived(self, steps: int) -> None:
        if steps == self.steps:
            self.stop("for a restart")

    def _end(self, kind: str, detail: str) -> None:
        """A process that is killed says nothing."""


@pytest.fixture(scope="module")
def clipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params, Home]:
    root, params = tmp_path_factory.mktemp("clipped"), settings()
    return root, params, lived(root, params, tuple(AGENTS))


World = tuple[Path, Params, Home]


def test_a_clip_is_logged_and_marked(clipped: World) -> None:
    _, _, home = clipped
    found = rows_of(home, rows.Clip)
    assert len(found) > 5
    assert {clip.agent for clip in found} == set(AGENTS)
    verdicts = {(v.agent, v.bar_time): v for v in rows_of(home, rows.Verdict)}
    marked = {key for key, one in verdicts.items() if one.reasons & Reason.ACCOUNT_CLIP}
    assert marked == {(clip.agent, clip.bar_time) for clip in found}
    events = {(e.agent, e.bar_time): e for e in rows_of(home, rows.RiskEvent, kind="account clip")}
    for clip in found:
        assert abs(clip.allowed) < abs(clip.wanted)
        verdict = verdicts[clip.agent, clip.bar_time]
        assert "clipped to a limit of the whole account" in verdict.words
        assert "limit" in clip.detail or "allocation" in clip.detail
        assert events[clip.agent, clip.bar_time].detail.endswith(clip.detail)


def test_what_was_ordered_stays_within_the_limits(clipped: World) -> None:
    _, _, home = clipped
    books = rows_of(home, rows.Equity)
    opening = 3 * 100_000.0
    # Prices move after an order, so what is held may drift a little over what was allowed.
    solo = [one.shares * one.close for one in books if one.agent == "solo"]
    assert max(solo) < 0.15 * opening * 1.15
    asked = [v.asked for v in rows_of(home, rows.Verdict, agent="solo")]
    assert np.nanmax(asked) * 0.98 * 100_000.0 > 0.3 * opening  # where it would have gone


def test_the_order_of_agents_does_not_matter(clipped: World, tmp_path: Path) -> None:
    _, params, home = clipped
    other = lived(tmp_path, params, ["twin", "fund", "solo"])
    for kind in (rows.Clip, rows.Verdict, rows.Equity, rows.Fill, rows.Intent):
        for agent in AGENTS:
            assert rows_of(home, kind, agent=agent) == rows_of(other, kind, agent=agent)


@pytest.mark.parametrize("agent", AGENTS)
def test_parity_explains_a_clip_rather_than_failing(clipped: World, agent: str) -> None:
    root, params, home = clipped
    shelf = world.FolderShelf(root / "shelf")
    bundle = shelf.load(agent, shelf.production(agent))
    (found,) = [one for one in recorded(home, 1) if one.agent == agent]
    dataset, cash = dataset_of(params, bundle, agent), params.account.cash
    one = certificate_of(home, found, bundle, dataset, rules_of(params, agent), cash)
    assert one.passed, str(one)
    assert one.cuts == len(rows_of(home, rows.Clip, agent=agent)) > 0
    assert f"; {one.cuts} verdicts cut by the account, as recorded" in str(one)


def test_after_a_restart_the_clips_are_lived_through_again(tmp_path: Path, clipped: World) -> None:
    """Without a snapshot since, so that books come from bars, verdicts and clips alone."""
    _, _, whole = clipped
    slow = settings(paper={"alias_poll_seconds": 0.05, "snapshot_seconds": 1e6})
    shelf, home = shelf_of(tmp_path / "shelf", slow), Home(tmp_path / "home")
    for _ in range(3):
        feed = world.feed(bars_per_second=60.0)
        worker = Interrupted(home, slow, AGENTS, feed, shelf=shelf, environment={})
        worker.run()
    Worker(home, slow, AGENTS, world.feed(), shelf=shelf, environment={}).run()
    for kind in (rows.Clip, rows.Verdict, rows.Equity, rows.Fill):
        for agent in AGENTS:
            assert rows_of(home, kind, agent=agent) == rows_of(whole, kind, agent=agent)


class LateFeed(ReplayFeed):
    """Some of its bars come too late to order on."""

    asked = 0

    def too_old(self, bar: FeedBar) -> str:
        self.asked += 1
        return "SOLO: a later bar is due" if self.asked in (7, 8, 9) else ""


def test_on_a_stale_price_nothing_is_ordered_and_parity_knows_it(tmp_path: Path) -> None:
    params = settings(portfolio={})
    shelf, home = shelf_of(tmp_path / "shelf", params), Home(tmp_path / "home")
    feed = LateFeed(world.market(), world.PAPER_BARS)
    Worker(home, params, ["solo"], feed, shelf=shelf, environment={}).run()
    stale = rows_of(home, rows.Clip)
    late = [decision.bar_time for decision in rows_of(home, rows.Decision)[6:9]]
    assert stale
    assert {clip.bar_time for clip in stale} <= set(late)
    for clip in stale:
        (verdict,) = rows_of(home, rows.Verdict, bar_time=clip.bar_time)
        assert math.isnan(clip.allowed)
        assert math.isnan(verdict.allowed)
        assert "no order on a stale price" in verdict.words
        assert rows_of(home, rows.Intent, bar_time=clip.bar_time, leg="entry") == []
    told = rows_of(home, rows.RiskEvent, kind="stale bar")
    assert [event.bar_time for event in told] == late
    bundle = shelf.load("solo", shelf.production("solo"))
    (found,) = recorded(home, 1)
    dataset, cash = dataset_of(params, bundle, "solo"), params.account.cash
    one = certificate_of(home, found, bundle, dataset, rules_of(params, "solo"), cash)
    assert one.passed, str(one)


def test_nobody_is_told_and_no_snapshot_is_kept_before_the_orders_of_a_step_have_left(
    tmp_path: Path,
) -> None:
    happened: list[tuple[str, str]] = []

    class Sending(PaperBroker):
        def place(self, ticket: Ticket) -> Report:
            happened.append(("sent", ticket.order_ref))
            return super().place(ticket)

    class Listening(Watch):
        def see(self, row: rows.Row) -> None:
            happened.append((row.TABLE, getattr(row, "order_ref", "")))

    params = settings(paper={"alias_poll_seconds": 0.05, "snapshot_seconds": 1e-6})
    home, shelf = Home(tmp_path / "home"), shelf_of(tmp_path / "shelf", params)
    Worker(
        home, params, tuple(AGENTS), world.feed(), shelf=shelf, environment={}, broker=Sending(),
        watch=Listening(params.alerts, Meters(tuple(AGENTS))),
    ).run()  # fmt: skip
    sent = [ref for what, ref in happened if what == "sent"]
    assert len(sent) > 20
    for ref in sent:
        assert happened.index(("sent", ref)) < happened.index(("intents", ref))
    kept = happened.index(("snapshots", ""))
    assert happened.index(("equity", "")) < happened.index(("orders", sent[0])) < kept
