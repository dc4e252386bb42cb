"""Shadows: the same books as trading, harm to nobody, and verdicts that reach the registry."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serving_kit as world
import shadow_process
from shadow_kit import ChallengerShelf, shelf_with

from core.home import Home
from core.settings import Params
from pipelines import shadowing
from registry import sequential
from registry.bundle import Bundle
from serving import ring, shadow
from serving.following import Published
from serving.ledger import LedgerReader, rows
from serving.ledger.shadow_rows import ShadowBar, ShadowBegun, ShadowEnd
from serving.worker import Worker

AGENTS = ("solo", "pair")


def rows_of(home: Home, kind: type[rows.RowType], /, **equals: Any) -> list[rows.RowType]:
    with LedgerReader(home.ledger) as ledger:
        return ledger.rows(kind, **equals)


def traded(home: Home, settings: Params, shelf: ChallengerShelf) -> Home:
    feed = world.feed()
    Worker(home, settings, AGENTS, feed, shelf=shelf, challengers=shelf, environment={}).run()
    return home


def alone(home: Home, settings: Params, shelf: ChallengerShelf) -> Home:
    Worker(home, settings, AGENTS, world.feed(), shelf=shelf, environment={}).run()
    return home


def books(home: Home) -> list[tuple[Any, ...]]:
    """Return everything Production did, as recorded."""
    found: list[tuple[Any, ...]] = []
    for kind in (rows.Equity, rows.Decision, rows.Verdict, rows.Intent, rows.Fill):
        found += [rows.values_of(row) for row in rows_of(home, kind)]
    return found


@pytest.fixture(scope="module")
def settings() -> Params:
    return world.params()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, settings: Params) -> list[Any]:
    root = tmp_path_factory.mktemp("alone")
    return books(alone(Home(root / "home"), settings, shelf_with(root / "shelf", settings)))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, settings: Params) -> Home:
    """Version 2 is Production's own network under another number, version 3 another one."""
    root = tmp_path_factory.mktemp("lived")
    shelf = ChallengerShelf(root / "shelf")
    for agent, seed in (("solo", 11), ("pair", 12)):
        for version, other in (("1", seed), ("2", seed), ("3", 31)):
            shelf.publish(settings, agent, version, other)
        shelf.point(agent, "1")
        shelf.challenge(agent, "2", "3")
    return traded(Home(root / "home"), settings, shelf)


@pytest.mark.parametrize("agent", AGENTS)
def test_a_shadow_of_productions_own_network_has_its_paper_book_to_the_last_bit(
    lived: Home, agent: str
) -> None:
    paper = rows_of(lived, rows.Equity, agent=agent)
    asked = rows_of(lived, rows.Verdict, agent=agent)
    own = rows_of(lived, ShadowBar, agent=agent, model_version="2")
    assert len(own) == len(paper) > 30
    assert len({book.equity for book in paper}) > 20
    assert [row.bar_time for row in own] == [book.bar_time for book in paper]
    for name in ("equity", "production_equity"):
        assert [getattr(row, name) for row in own] == [book.equity for book in paper]
    for name in ("asked", "production_asked"):
        assert [getattr(row, name) for row in own] == [verdict.asked for verdict in asked]
    assert {row.evidence for row in own} == {1.0}


def test_several_versions_run_at_once_each_with_its_own_book_and_share_of_alpha(
    lived: Home,
) -> None:
    begun = rows_of(lived, ShadowBegun, agent="solo")
    assert [(one.model_version, one.place, one.alpha) for one in begun] == [
        ("2", 1, 0.05 / 2),
        ("3", 2, 0.05 / 6),
    ]
    other = rows_of(lived, ShadowBar, agent="solo", model_version="3")
    assert [row.production_equity for row in other] == [
        book.equity for book in rows_of(lived, rows.Equity, agent="solo")
    ]
    assert other[-1].equity != other[-1].production_equity
    growth = np.log([100_000.0, *(row.equity for row in other)])
    assert np.diff(growth) == pytest.approx([row.log_return for row in other], abs=1e-12)


def test_the_wealth_is_that_of_the_sequential_test_over_the_recorded_pairs(lived: Home) -> None:
    other = rows_of(lived, ShadowBar, agent="solo", model_version="3")
    pairs = np.array([row.log_return - row.production_log_return for row in other])
    known = np.array([row.deviation for row in other])
    bars = {bar.bar_time: bar for bar in rows_of(lived, rows.BarSeen, agent="solo")}
    before = [bars[row.bar_time].volatility / np.sqrt(252.0) for row in other[:-1]]
    assert known[1:] == pytest.approx(before, rel=0.01)
    end = sequential.judge(pairs, known, 0.05 / 6, 0.05, 1_260)
    assert (other[-1].evidence, other[-1].against) == (end.evidence, end.against)
    assert end.evidence != 1.0


def test_production_does_the_same_with_shadows_beside_it(
    lived: Home, undisturbed: list[Any]
) -> None:
    assert books(lived) == undisturbed


class Raising(ChallengerShelf):
    def load(self, agent: str, published: Published) -> Bundle:
        if published.version == "2":
            raise ZeroDivisionError("a defect")
        return super().load(agent, published)


class Hanging(ChallengerShelf):
    """Hangs in the shadows' thread only; the worker asks from its own and the followers'."""

    released = threading.Event()

    def load(self, agent: str, published: Published) -> Bundle:
        if threading.current_thread().name == "shadows":
            self.released.wait(60.0)
        return super().load(agent, published)


@pytest.mark.parametrize("kind", [Raising, Hanging])
def test_a_shadow_that_raises_or_hangs_harms_nothing(
    kind: type[ChallengerShelf],
    tmp_path: Path,
    settings: Params,
    undisturbed: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shadow, "PATIENCE_SECONDS", 0.2)
    made = shelf_with(tmp_path / "shelf", settings, v2=21)
    Hanging.released.clear()
    shelf = kind(made.root)
    home = traded(Home(tmp_path / "home"), settings, shelf)
    Hanging.released.set()
    assert books(home) == undisturbed
    assert rows_of(home, ShadowBar) == []
    told = [event.detail for event in rows_of(home, rows.RiskEvent, kind="shadow off")]
    assert any(("ZeroDivisionError" if kind is Raising else "no step for") in one for one in told)
    assert rows_of(home, rows.SessionEvent)[-1].kind == "closed"


def test_rows_that_cannot_be_written_harm_nothing(
    tmp_path: Path, settings: Params, undisturbed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: ring.Ring, *_: Any) -> list[Any]:
        return [rows.Order.__new__(rows.Order)]  # a view: nothing can be added to it

    monkeypatch.setattr(ring.Ring, "live", broken)
    shelf = shelf_with(tmp_path / "shelf", settings, v2=21)
    assert books(traded(Home(tmp_path / "home"), settings, shelf)) == undisturbed


def decisive(**shadow_settings: Any) -> Params:
    """Settings under which forty bars are enough to decide."""
    return world.params(shadow={"longest_bars": 20, **shadow_settings})


def test_what_is_no_better_in_time_is_dropped_with_its_figures(tmp_path: Path) -> None:
    settings = decisive()
    shelf = shelf_with(tmp_path / "shelf", settings, v2=21)
    home = traded(Home(tmp_path / "home"), settings, shelf)
    end = rows_of(home, ShadowEnd, agent="solo")[0]
    assert (end.verdict, end.bars, end.model_version) == ("drop", 20, "2")
    words = "shadow test against version 1: no better within 20 bars, after 20 bars"
    assert ("drop", "solo", "2", f"{words}, comparison 1 with it") in shelf.asked
    assert len(rows_of(home, ShadowBar, agent="solo")) == 20
    told = [event.detail for event in rows_of(home, rows.RiskEvent, kind="shadow", agent="solo")]
    assert told[-1] == "version 2 is not Challenger any more"


def test_for_the_better_one_a_person_is_asked_unless_params_say_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What becomes of it otherwise, through a real registry: test_serving_shadow_promotion.py."""
    settings = decisive(alpha=0.49)
    # A test that is won when there are ten pairs: which policy earns more is not the question.
    monkeypatch.setattr(sequential, "log_wealth", lambda x: np.arange(len(x)) - 9.0 + 1.5)
    shelf = shelf_with(tmp_path / "shelf", settings, v2=21)
    home = traded(Home(tmp_path / "home"), settings, shelf)
    end = rows_of(home, ShadowEnd, agent="solo")[0]
    assert end.verdict == "promote"
    assert {one.model_version for one in rows_of(home, rows.Decision, agent="solo")} == {"1"}
    told = [event.detail for event in rows_of(home, rows.RiskEvent, kind="shadow", agent="solo")]
    assert shelf.asked == []
    assert told[0].endswith(f"To promote it: {ring.command(end)}")


@pytest.mark.parametrize("when", ["inside a bar", "inside the shadows' rows", "after the last bar"])
def test_after_kill_9_shadows_go_on_to_the_rows_of_an_uninterrupted_run(
    when: str, tmp_path: Path
) -> None:
    process = Path(__file__).parent / "shadow_process.py"
    shelf = shelf_with(tmp_path / "shelf", shadow_process.settings(), v2=21, v3=22)
    died = subprocess.run(
        [sys.executable, str(process), str(tmp_path), when],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        check=False,
        timeout=120,
    )
    assert died.returncode == -signal.SIGKILL
    home = Home(tmp_path / "home")
    before = rows_of(home, ShadowBar)
    assert 0 < len(before) < 4 * shadow_process.PAPER_BARS
    for one in (home, Home(tmp_path / "uninterrupted")):
        shadow_process.worker(one, shelf).run()
    assert len(rows_of(home, rows.Session)) == 1
    for kind in (ShadowBegun, ShadowBar, ShadowEnd):
        assert told(home, kind) == told(Home(tmp_path / "uninterrupted"), kind)
    assert told(home, rows.Equity) == told(Home(tmp_path / "uninterrupted"), rows.Equity)


def told(home: Home, kind: type[rows.Row]) -> list[tuple[Any, ...]]:
    """Return rows agent by agent: which of two agents wrote first is no matter."""
    found = [rows.values_of(row) for row in rows_of(home, kind)]
    return sorted(found, key=lambda values: values[1])


def test_without_challengers_nothing_is_recorded(tmp_path: Path, settings: Params) -> None:
    home = traded(Home(tmp_path / "home"), settings, shelf_with(tmp_path / "shelf", settings))
    assert rows_of(home, ShadowBegun) == []


def test_every_comparison_is_shown_with_books_wealth_and_verdict(lived: Home) -> None:
    own, other = shadowing.compared(lived, "solo")
    assert (own.challenger, own.bars, own.needed, own.verdict) == ("2", 40, 40.0, "continue")
    last = rows_of(lived, ShadowBar, agent="solo", model_version="3")[-1]
    assert (other.equity, other.evidence) == (last.equity, last.evidence)
    assert f"version 3 beside Production 1, session 1, 40 bars: book {last.equity:,.2f}" in str(
        other
    )
    drawn = shadowing.picture(lived, "solo")
    assert drawn is not None
    assert "solo: version 3 beside 1" in drawn.read_text()
    assert shadowing.compared(lived, "nobody") == []
    assert shadowing.picture(lived, "nobody") is None
