"""The decision timer: decisions on an unfinished bar, recorded so that they can be replayed."""

import dataclasses
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import serving_kit as world
import timer_kit as kit
from test_pipelines_certificate import tamper
from test_serving_gateway import gateway

from core.bars import BAR_COLUMNS
from core.errors import ConfigError
from core.home import Home
from core.settings import Params
from features.account import ACCOUNT_COLUMNS
from features.table import build_row, build_table
from pipelines.certificate import Certificate, Part, certificates_of, recorded
from pipelines.timed import timed_dataset
from serving.agent import TradingAgent
from serving.briefing import bars_of, history_of, of_bars, of_history
from serving.feeds import Feed
from serving.following import Published
from serving.history import FeedBar, History, Instrument
from serving.ledger import LedgerReader, rows
from serving.service import make_feed
from serving.session import rules_of
from serving.timer import Grid, Slicer, Tick, first_of_day, heard_again, parts_of
from serving.worker import Worker

QUICK = Instrument("bundled", kit.SYMBOL, "1m", 5)
OPEN = datetime(2026, 3, 4, 14, 30, tzinfo=UTC)


def feed_of(home: Home) -> Feed:
    return make_feed(home, kit.settings(), ["quick"])


def trade(home: Home, root: Path, feed: Feed | None = None) -> None:
    params = kit.settings()
    shelf = kit.shelf_of(root / "shelf", params)
    Worker(home, params, ["quick"], feed or feed_of(home), shelf=shelf, environment={}).run()


def rows_of(home: Home, kind: type[rows.RowType]) -> list[rows.RowType]:
    with LedgerReader(home.ledger) as ledger:
        return ledger.rows(kind, session=1)


def certificate(home: Home, root: Path, settings: Params | None = None) -> Certificate:
    params, (found,) = settings or kit.settings(), recorded(home, 1)
    shelf = world.FolderShelf(root / "shelf")

    def material(part: Part) -> object:
        bundle = shelf.load("quick", Published(part.version, part.bundle_sha256))
        heard = (home, params, "quick", found.heard, found.times, bundle.spec)
        return bundle, *timed_dataset(*heard)

    cash = params.account.cash
    (one,) = certificates_of(home, found, material, rules_of(params, "quick"), cash)  # type: ignore[arg-type]
    return one


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("traded")
    trade(kit.home_with_bars(root / "home"), root)
    return root


def test_an_agent_with_a_timer_decides_on_the_bar_as_it_is_so_far(traded: Path) -> None:
    home, finer = Home(traded / "home"), kit.finer_bars()
    decisions = rows_of(home, rows.Decision)
    assert [one.bar_time for one in decisions] == [t.to_pydatetime() for t in finer.index]
    # The third minute, eight parts in: five whole minutes before it, and forty seconds of its own.
    place = 2 * kit.PARTS + 7
    spec = world.spec_from(kit.settings(), "1m")
    whole = kit.whole_bars(finer)
    begun = finer.iloc[2 * kit.PARTS : place + 1]
    bars = whole.loc[: begun.index[0]].copy()
    so_far = [begun["open"].iloc[0], begun["high"].max(), begun["low"].min(),
              begun["close"].iloc[-1], begun["volume"].sum(), 0.0, 1.0]  # fmt: skip
    bars.iloc[-1] = so_far
    row = build_row(bars, spec, "1m")
    shelf = world.FolderShelf(traded / "shelf")
    bundle = shelf.load("quick", shelf.production("quick"))
    scaled = bundle.scaler.transform(row[None])[0].astype("<f4").tobytes()
    assert decisions[place].observation[: len(scaled)] == scaled
    seen = rows_of(home, rows.BarSeen)[place]
    assert (seen.row_time, seen.decide_seconds) == (begun.index[0].to_pydatetime(), 5)
    assert (seen.open, seen.close) == (finer["open"].iloc[place], finer["close"].iloc[place])


def test_orders_leave_at_once_and_are_filled_from_the_next_part_on(traded: Path) -> None:
    home, finer = Home(traded / "home"), kit.finer_bars()
    orders, fills = rows_of(home, rows.Intent), rows_of(home, rows.Fill)
    assert orders
    assert {one.kind for one in orders if one.leg == "entry"} == {"market"}
    times = [time.to_pydatetime() for time in finer.index]
    by_ref = {one.order_ref: one for one in orders}
    entry = next(fill for fill in fills if fill.leg == "entry")
    place = times.index(by_ref[entry.order_ref].bar_time)
    assert entry.bar_time == times[place + 1]
    assert entry.price == pytest.approx(finer["open"].iloc[place + 1], rel=3e-4)  # 2 bps slippage


def test_the_session_is_certified_and_a_changed_part_is_found(traded: Path, tmp_path: Path) -> None:
    home = Home(traded / "home")
    said = certificate(home, traded)
    assert said.passed, str(said)
    assert said.bars == kit.MINUTES * kit.PARTS
    copy = Home(tmp_path / "home")
    kit.home_with_bars(copy.root)
    copy.ledger.write_bytes(home.ledger.read_bytes())
    assert tamper(copy, "DROP TRIGGER IF EXISTS bars_no_update") is not None
    changed = recorded(copy, 1)[0].times[17]
    sql = "UPDATE bars SET close = close + 0.01 WHERE bar_time = ?"
    assert tamper(copy, sql, rows._to_sql(changed)) == 1
    found = certificate(copy, traded).difference
    assert found is not None
    assert found.bar_time == changed


def test_a_session_stopped_inside_a_bar_goes_on_as_if_it_had_not_been(
    traded: Path, tmp_path: Path
) -> None:
    home, params = kit.home_with_bars(tmp_path / "home"), kit.settings()
    shelf = kit.shelf_of(tmp_path / "shelf", params)
    for part in (29, None):  # seconds before the third minute ends
        feed = feed_of(home)
        worker = Worker(home, params, ["quick"], feed, shelf=shelf, environment={})
        stream = feed.stream

        def until(
            after: Mapping[Instrument, datetime], stop: Event, part: int | None = part
        ) -> Iterator[tuple[FeedBar, ...]]:
            for number, step in enumerate(stream(after, stop)):  # noqa: B023
                if number == part:
                    worker.stop()  # noqa: B023
                    stop.wait()
                    return
                yield step

        feed.stream = until  # type: ignore[method-assign]
        worker.run()
    for kind in (rows.BarSeen, rows.Decision, rows.Fill, rows.Equity):
        ours, theirs = rows_of(home, kind), rows_of(Home(traded / "home"), kind)
        assert [_content(one) for one in ours] == [_content(one) for one in theirs]
    starts = [one for one in rows_of(home, rows.SessionEvent) if one.kind == "started"]
    assert len(starts) == 2
    assert certificate(home, tmp_path).passed


def test_an_agent_in_a_process_of_its_own_decides_the_same(traded: Path, tmp_path: Path) -> None:
    home, params = kit.home_with_bars(tmp_path / "home"), kit.settings()
    desk = gateway(home, traded / "shelf")
    feed, shelf = feed_of(home), world.FolderShelf(traded / "shelf")
    worker = Worker(home, params, ["quick"], feed, shelf=shelf, desk=desk, environment={})
    assert worker.run().finished
    for kind in (rows.Decision, rows.Fill, rows.Equity):
        ours, theirs = rows_of(home, kind), rows_of(Home(traded / "home"), kind)
        assert [_content(one) for one in ours] == [_content(one) for one in theirs]


def _content(row: rows.Row) -> str:
    names = [field.name for field in dataclasses.fields(row) if field.name != "recorded_at"]
    return repr([getattr(row, name) for name in names])


def test_a_briefed_agent_grows_the_same_bar(traded: Path) -> None:
    parts = list(parts_of(kit.finer_bars(), QUICK, "XNYS"))
    whole = kit.whole_bars(kit.finer_bars())
    ours = History(QUICK, whole.loc[whole.index < parts[0].row])
    for part in parts[:5]:
        ours.append(part)
    theirs = history_of(of_history(ours))
    for part in parts[5:20]:
        ours.append(part)
    for part in bars_of(of_bars(parts[5:20])):
        theirs.append(part)
    assert theirs.frame().equals(ours.frame())
    assert theirs.newest == ours.newest == parts[19].time
    assert ours.newest_row == parts[12].time  # the second minute: parts 12 to 19 so far
    assert ours.frame().iloc[-2].equals(whole.loc[parts[0].row])


def test_a_policy_that_looks_back_sees_whole_bars_behind_the_unfinished_one(
    tmp_path: Path,
) -> None:
    params = kit.settings(environment={"window": 3})
    shelf = kit.shelf_of(tmp_path, params)
    bundle = shelf.load("quick", shelf.production("quick"))
    parts = list(parts_of(kit.finer_bars(), QUICK, "XNYS"))
    whole = kit.whole_bars(kit.finer_bars())
    history = History(QUICK, whole.loc[whole.index < parts[0].row])
    agent = TradingAgent("quick", "1", bundle, history, history)
    for part in parts[: 2 * kit.PARTS + 8]:
        history.append(part)
        agent.see()
    seen = agent.decide_on(np.zeros((1, len(ACCOUNT_COLUMNS)), np.float32)).observation
    table = build_table(history.frame(), bundle.spec, "1m").to_numpy()[-3:]
    expected = bundle.scaler.transform(table).astype("<f4").tobytes()
    assert seen[: len(expected)] == expected


def test_a_session_of_a_policy_that_looks_back_is_certified_with_what_came_whole(
    tmp_path: Path,
) -> None:
    home = kit.home_with_bars(tmp_path / "home")
    features = {"anchor_sessions": 2, "scaler": "rolling", "rolling_window_bars": 60}
    params = kit.settings(environment={"window": 3}, features=features)
    shelf = kit.shelf_of(tmp_path / "shelf", params)
    feed, whole = make_feed(home, params, ["quick"]), kit.whole_bars(kit.finer_bars())
    stream, missed = feed.stream, kit.finer_bars().index[2 * kit.PARTS]

    def broken(after: Mapping[Instrument, datetime], stop: Event) -> Iterator[tuple[FeedBar, ...]]:
        for (part,) in stream(after, stop):
            if part.row != missed:
                yield (part,)
            elif part.time == missed:  # the third minute comes as history, in one piece
                yield (FeedBar(QUICK, part.time, tuple(whole.loc[missed])),)

    feed.stream = broken  # type: ignore[method-assign]
    Worker(home, params, ["quick"], feed, shelf=shelf, environment={}).run()
    said = certificate(home, tmp_path, params)
    assert said.passed, str(said)
    assert said.bars == (kit.MINUTES - 1) * kit.PARTS
    assert said.fills > 0


@pytest.mark.parametrize("missed", [1, 2, 3])
def test_a_policy_that_looks_back_sees_the_bars_that_nobody_decided_on(
    tmp_path: Path, missed: int
) -> None:
    """What came whole, after a broken link, is history: it belongs into the window."""
    params = kit.settings(environment={"window": 3})
    shelf = kit.shelf_of(tmp_path, params)
    bundle = shelf.load("quick", shelf.production("quick"))
    parts = list(parts_of(kit.finer_bars(), QUICK, "XNYS"))
    whole = kit.whole_bars(kit.finer_bars())
    history = History(QUICK, whole.loc[whole.index < parts[0].row])
    agent = TradingAgent("quick", "1", bundle, history, history)
    resumed = (1 + missed) * kit.PARTS
    for part in parts[: kit.PARTS]:
        history.append(part)
        agent.see()
    for part in parts[kit.PARTS : resumed : kit.PARTS]:
        history.append(FeedBar(QUICK, part.time, tuple(whole.loc[part.time])))
    for part in parts[resumed : resumed + 3]:
        history.append(part)
        agent.see()
    seen = agent.decide_on(np.zeros((1, len(ACCOUNT_COLUMNS)), np.float32)).observation
    table = build_table(history.frame(), bundle.spec, "1m").to_numpy()[-3:]
    expected = bundle.scaler.transform(table).astype("<f4").tobytes()
    assert seen[: len(expected)] == expected


def test_trades_become_parts_on_the_grid_of_the_session() -> None:
    slicer = Slicer(QUICK, "XNYS")
    slicer.subscribed(OPEN - timedelta(minutes=5), None)
    before = OPEN - timedelta(days=1)
    for seconds, price in ((-1, 90.0), (0, 100.0), (4.9, 102.0), (2, 99.0), (61.0, 103.0)):
        slicer.hear(Tick(kit.SYMBOL, OPEN + timedelta(seconds=seconds), price, 10.0))
    assert [part.time for part in slicer.take(OPEN + timedelta(seconds=64), before)] == [OPEN]
    assert slicer.due(OPEN + timedelta(seconds=64)) == 1.0
    (late,) = slicer.take(OPEN + timedelta(seconds=65), before)
    assert (late.time, late.row) == (OPEN + timedelta(seconds=60), OPEN + timedelta(seconds=60))
    assert late.values == (103.0, 103.0, 103.0, 103.0, 10.0, 0.0, 1.0)
    assert slicer.due(OPEN + timedelta(seconds=70)) == np.inf  # nobody traded: nothing is over


def test_a_part_is_open_high_low_close_and_volume_of_its_trades() -> None:
    slicer = Slicer(QUICK, "XNYS")
    slicer.subscribed(OPEN, None)
    for seconds, price in ((0.5, 100.0), (1, 102.0), (2, 99.0), (3, 101.0)):
        slicer.hear(Tick(kit.SYMBOL, OPEN + timedelta(seconds=seconds), price, 10.0))
    (part,) = slicer.take(OPEN + timedelta(seconds=5), OPEN - timedelta(days=1))
    assert part.values == (100.0, 102.0, 99.0, 101.0, 40.0, 0.0, 1.0)


def test_a_bar_is_decided_on_only_where_its_beginning_is_known() -> None:
    minute = OPEN + timedelta(minutes=10)
    begun = FeedBar(QUICK, minute, (100.0, 105.0, 95.0, 101.0, 7000.0, 0.0, 1.0))
    for known, expected in ((begun, [minute, minute + timedelta(seconds=30)]), (None, [])):
        slicer = Slicer(QUICK, "XNYS")
        slicer.subscribed(minute + timedelta(seconds=28), known)
        slicer.hear(Tick(kit.SYMBOL, minute + timedelta(seconds=31), 102.0, 10.0))
        found = slicer.take(minute + timedelta(seconds=35), minute - timedelta(seconds=5))
        assert [one.time for one in found] == expected
    # What was lived through before the link broke is the beginning as well.
    again = Slicer(QUICK, "XNYS")
    again.subscribed(minute + timedelta(seconds=28), begun)
    again.hear(Tick(kit.SYMBOL, minute + timedelta(seconds=31), 102.0, 10.0))
    lived = minute + timedelta(seconds=15)
    assert len(again.take(minute + timedelta(seconds=35), lived)) == 1


def test_what_was_heard_before_a_lost_link_keeps_what_was_known_of_its_bar() -> None:
    """A part that nobody took before the link came back is judged by the time of its trades."""
    day_before, slicer = OPEN - timedelta(days=1), Slicer(QUICK, "XNYS")
    again = FeedBar(QUICK, OPEN, (100.0, 102.0, 100.0, 102.0, 90.0, 0.0, 1.0))
    slicer.subscribed(OPEN, None)
    slicer.hear(Tick(kit.SYMBOL, OPEN + timedelta(seconds=6), 100.0, 10.0))
    slicer.lost()
    slicer.hear(Tick(kit.SYMBOL, OPEN + timedelta(seconds=7), 101.0, 10.0))  # another's
    slicer.subscribed(OPEN + timedelta(seconds=8), again)
    slicer.hear(Tick(kit.SYMBOL, OPEN + timedelta(seconds=9), 102.0, 10.0))
    (part,) = slicer.take(OPEN + timedelta(seconds=10), day_before)
    assert part.values == (100.0, 102.0, 100.0, 102.0, 20.0, 0.0, 1.0)


def test_a_daily_bar_begins_at_the_open_and_is_named_by_its_date() -> None:
    grid = Grid(Instrument("ibkr", kit.SYMBOL, "1d", 1800), "XNYS")
    place = grid.place(OPEN + timedelta(minutes=75))
    assert place == (OPEN + timedelta(minutes=60), datetime(2026, 3, 4, tzinfo=UTC), OPEN)
    assert grid.place(OPEN - timedelta(seconds=1)) is None
    assert grid.place(datetime(2026, 3, 7, 15, tzinfo=UTC)) is None  # a Saturday


def test_a_split_stands_on_the_first_part_of_its_day_and_survives_a_restart() -> None:
    part = FeedBar(QUICK, OPEN, (25.0, 25.0, 25.0, 25.0, 1.0, 0.0, 1.0), OPEN)
    (first,) = first_of_day([part], OPEN - timedelta(days=1), 4.0)
    assert first.values[-1] == 4.0
    assert first_of_day([part], OPEN - timedelta(minutes=1), 4.0) == [part]
    # A whole bar with the split was skipped: the part behind it is recorded with it once more.
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), 25.0)
    of = {"session": 1, "agent": "quick", "symbol": kit.SYMBOL, "interval": "1m", **prices}
    skipped = rows.BarSeen(**of, bar_time=OPEN, dividend=0.0, split_ratio=4.0, atr=np.nan,
                           volatility=np.nan, decide_seconds=5)  # fmt: skip
    minute = OPEN + timedelta(minutes=1)
    lived = rows.BarSeen(**of, bar_time=minute, dividend=0.0, split_ratio=4.0, atr=1.0,
                         volatility=0.2, decide_seconds=5, row_time=minute)  # fmt: skip
    whole = kit.whole_bars(kit.finer_bars())
    history = heard_again(QUICK, whole, [skipped, lived])
    assert history.frame()["split_ratio"].iloc[-2:].tolist() == [4.0, 1.0]
    assert tuple(history.frame().columns) == BAR_COLUMNS


def test_a_timer_without_anything_to_hear_is_refused(tmp_path: Path) -> None:
    home = kit.home_with_bars(tmp_path / "home")
    with pytest.raises(ConfigError, match="decide: 5s needs ticks, and yfinance has bars only"):
        make_feed(home, kit.settings(), ["quick"], "yfinance")
    with pytest.raises(ConfigError, match="cannot decide every 2 s; trade it on ticks"):
        make_feed(home, kit.settings("2s"), ["quick"])
    (home.data / "validated" / f"{kit.SYMBOL}-5s.parquet").unlink()
    with pytest.raises(ConfigError, match=r"finer bars than 1m; run `ratchet ingest SOLO.*5s"):
        make_feed(home, kit.settings(), ["quick"])


@pytest.mark.parametrize("decide", ["0s", "500ms", "7s", "45s", "60s", "1h", "-5s"])
def test_a_timer_that_cannot_be_is_refused(decide: str) -> None:
    with pytest.raises(ConfigError, match="decide"):
        kit.settings(decide)
