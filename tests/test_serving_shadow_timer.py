"""Challengers beside an agent that decides on a timer: part by part, as Production lives."""

import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import timer_kit as kit

from core.calendar import decisions_per_year
from core.home import Home
from core.settings import Params
from serving.feeds import Feed
from serving.history import FeedBar, Instrument
from serving.ledger import Ledger, LedgerReader, rows
from serving.ledger.shadow_rows import ShadowBar, ShadowBegun, ShadowEnd
from serving.service import make_feed
from serving.shadow import Shadows
from serving.worker import Worker

DURABLE = 8  # parts, when the first worker stops writing rows of its shadows
STOPS = 29  # parts until it stops trading: inside the third minute


@pytest.fixture(scope="module")
def settings() -> Params:
    return kit.settings(environment={"window": 3})


def feed_of(home: Home, settings: Params, parts: int | None = None) -> Feed:
    """Return the replay, its second minute in one piece, as after a broken link; or its start."""
    feed = make_feed(home, settings, ["quick"])
    stream, whole = feed.stream, kit.whole_bars(kit.finer_bars())
    missed = kit.finer_bars().index[kit.PARTS]

    def broken(
        after: Mapping[Instrument, datetime], stop: threading.Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        for number, (part,) in enumerate(stream(after, stop)):
            if number == parts:
                stop.wait()
                return
            if part.row != missed:
                yield (part,)
            elif part.time == missed:
                yield (FeedBar(part.instrument, part.time, tuple(whole.loc[missed])),)

    feed.stream = broken  # type: ignore[method-assign]
    return feed


def read(home: Home, kind: type[rows.RowType], **equals: Any) -> list[rows.RowType]:
    with LedgerReader(home.ledger) as ledger:
        return ledger.rows(kind, **equals)


class Lagging(Shadows):
    """Write some rows and then no more, and stop the worker once Production is well ahead."""

    written = 0
    worker: Worker

    def write(self, ledger: Ledger) -> None:
        if self.written < DURABLE and self._out:
            super().write(ledger)  # the rows of one part, see below
            self.written += 1
        if self._heard == STOPS - kit.PARTS and self.written >= DURABLE:
            self.worker.stop()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, settings: Params) -> Path:
    root = tmp_path_factory.mktemp("lived")
    shelf = kit.shelf_of(root / "shelf", settings, v2=5, v3=6)  # 2 is Production's own network
    home = kit.home_with_bars(root / "home")
    Worker(
        home, settings, ["quick"], feed_of(home, settings), shelf=shelf, challengers=shelf,
        environment={},
    ).run()  # fmt: skip
    return root


def test_a_shadow_on_a_timer_has_productions_own_book_to_the_last_bit(
    lived: Path, settings: Params
) -> None:
    home = Home(lived / "home")
    books = read(home, rows.Equity)
    beside = read(home, ShadowBar, model_version="2")
    assert len(beside) == (kit.MINUTES - 1) * kit.PARTS
    assert [one.bar_time for one in beside] == [one.bar_time for one in books]
    assert [one.equity for one in beside] == [one.equity for one in books]
    assert {one.equity for one in read(home, ShadowBar, model_version="3")} != {
        one.equity for one in books
    }
    # A deviation is of one decision, not of one bar.
    assert [one.longest_bars for one in read(home, ShadowBegun)] == [1_260 * kit.PARTS] * 2
    year = decisions_per_year("1m", 5)
    assert beside[5].deviation == beside[4].volatility / year**0.5


def test_shadows_on_a_timer_catch_up_after_a_stop_inside_a_bar(
    lived: Path, settings: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.shadow.ROWS_AT_ONCE", 1)
    home = kit.home_with_bars(tmp_path / "home")
    shelf = kit.shelf_of(tmp_path / "shelf", settings, v2=5, v3=6)
    first = Worker(
        home, settings, ["quick"], feed_of(home, settings, STOPS), shelf=shelf, environment={}
    )
    first._shadows = lagging = Lagging(home, settings, shelf)
    lagging.worker = first
    first.run()
    parts = {one.bar_time for one in read(home, ShadowBar)}
    assert 0 < len(parts) <= DURABLE < len(read(home, rows.Decision))
    monkeypatch.undo()
    Worker(
        home, settings, ["quick"], feed_of(home, settings), shelf=shelf, challengers=shelf,
        environment={},
    ).run()  # fmt: skip
    for kind in (ShadowBegun, ShadowBar, ShadowEnd):
        ours, theirs = read(home, kind), read(Home(lived / "home"), kind)
        assert [rows.values_of(one) for one in ours] == [rows.values_of(one) for one in theirs]
