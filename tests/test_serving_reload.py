"""Settings reloaded while trading: taken over between bars, recorded, and valid bar by bar."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import serving_kit as world
from test_serving_parity import dataset_of

from core.errors import ConfigError, NotAllowed, ServiceUnavailable
from core.home import Home
from core.settings import Params
from pipelines.certificate import certificate_of, recorded
from serving import steering
from serving.ledger import LedgerReader, rows
from serving.lock import worker_lock
from serving.messages import Reload
from serving.session import rules_of
from serving.worker import Worker

TIGHT = {"max_weight": 0.3, "volatility_target": 0.25, "take_profit": 0.04, "cooldown_bars": 2,
         "drawdown_window_bars": 16}  # fmt: skip
STEPS = 15


def slow(**sections: object) -> Params:
    return world.params(paper={"alias_poll_seconds": 0.05, "snapshot_seconds": 1e6}, **sections)


class Reloading(Worker):
    """Is told to read its settings again after so many steps."""

    ends = False

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named, desk=world.CountingDesk(self._lived))

    def _lived(self, steps: int) -> None:
        if steps == STEPS:
            self._handler.handle(Reload("SIGHUP"))  # as the main loop does between two bars
        if self.ends and steps == STEPS + 5:
            self.stop("for a restart")

    def _end(self, kind: str, detail: str) -> None:
        if not self.ends:
            super()._end(kind, detail)


def traded(
    root: Path, settings: Callable[[], Params], kind: type[Reloading] = Reloading
) -> tuple[Home, world.FolderShelf]:
    shelf, home = world.shelf_with_both(root / "shelf", slow()), Home(root / "home")
    feed = world.feed(bars_per_second=60.0 if kind.ends else 0.0)
    kind(home, slow(), ["solo"], feed, shelf=shelf, environment={}, settings=settings).run()
    return home, shelf


def rows_of(home: Home, row: type[rows.RowType], **equals: object) -> list[rows.RowType]:
    with LedgerReader(home.ledger) as ledger:
        return ledger.rows(row, **equals)


@pytest.fixture(scope="module")
def tightened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, world.FolderShelf]:
    root = tmp_path_factory.mktemp("tightened")
    return traded(root, lambda: slow(risk=TIGHT, costs={"slippage_bps": 9.0}))


Traded = tuple[Home, world.FolderShelf]


def test_limits_hold_from_the_next_bar_on_and_old_and_new_are_recorded(tightened: Traded) -> None:
    home, _ = tightened
    decisions = rows_of(home, rows.Decision)
    first, second = rows_of(home, rows.RuleChange)
    assert first.bar_time is None
    assert second.bar_time == decisions[STEPS - 1].bar_time
    assert second.changes == {"max_weight": [1.0, 0.3], "drawdown_window_bars": [252, 16]}
    allowed = [v.allowed for v in rows_of(home, rows.Verdict)]
    assert max(filter(lambda one: one == one, allowed[:STEPS])) > 0.3
    assert max(filter(lambda one: one == one, allowed[STEPS:])) == pytest.approx(0.3)
    (event,) = rows_of(home, rows.RiskEvent, kind="settings")
    assert "took over risk.max_weight 1.0 -> 0.3" in event.detail
    assert "not while it runs, restart for costs.slippage_bps 2.0 -> 9.0" in event.detail
    assert event.detail.endswith("(SIGHUP)")


def test_parity_lives_each_bar_by_its_own_rules(tightened: Traded) -> None:
    home, shelf = tightened
    settings, bundle = slow(), shelf.load("solo", shelf.production("solo"))
    (found,) = recorded(home, 1)
    dataset, cash = dataset_of(settings, bundle, "solo"), settings.account.cash
    one = certificate_of(home, found, bundle, dataset, rules_of(settings, "solo"), cash)
    assert one.passed, str(one)
    assert str(one).endswith("; rules changed 1 times, each bar by its own")


class Interrupted(Reloading):
    ends = True


def test_after_a_restart_every_bar_is_lived_through_by_the_rules_of_its_time(
    tmp_path: Path, tightened: Traded
) -> None:
    new = slow(risk=TIGHT)
    home, shelf = traded(tmp_path, lambda: new, Interrupted)
    assert len(rows_of(home, rows.Equity)) < world.PAPER_BARS
    Worker(home, new, ["solo"], world.feed(), shelf=shelf, environment={}).run()
    assert len(rows_of(home, rows.RuleChange)) == 2  # the restart changed nothing
    for row in (rows.Equity, rows.Verdict, rows.Fill):
        assert rows_of(home, row) == rows_of(tightened[0], row)


def test_a_bad_file_leaves_the_old_settings_and_one_clear_event(tmp_path: Path) -> None:
    def broken() -> Params:
        raise ConfigError("params.yaml: unknown key `risk.max_wieght`; did you mean 'max_weight'?")

    home, _ = traded(tmp_path, broken)
    assert len(rows_of(home, rows.RuleChange)) == 1
    assert rows_of(home, rows.RiskEvent, kind="settings") == []
    (event,) = rows_of(home, rows.RiskEvent, kind="settings refused")
    assert event.detail.startswith("params.yaml: unknown key `risk.max_wieght`")
    assert event.detail.endswith("the old ones stay")
    assert len(rows_of(home, rows.Equity)) == world.PAPER_BARS


def test_without_a_worker_there_is_nothing_to_reload(home: Home) -> None:
    with pytest.raises(NotAllowed, match="no worker runs here"):
        steering.reload(home)


def test_a_worker_that_says_nothing_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(steering.os, "kill", lambda *what: sent.append(what))
    with (
        worker_lock(home),
        pytest.raises(ServiceUnavailable, match=rf"process {os.getpid()}\) has not .* 0\.1 s"),
    ):
        steering.reload(home, seconds=0.1)
    assert sent == [(os.getpid(), signal.SIGHUP)]
