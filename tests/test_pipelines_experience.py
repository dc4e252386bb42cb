"""Experience: what was lived through on paper comes back beside history, and leaks nowhere."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import serving_kit as world
from training_kit import SMALL_SAC, small_lesson

from core.home import Home
from core.settings import Params
from features.account import ACCOUNT_COLUMNS
from features.dataset import Dataset
from features.observation import observe_rows
from features.table import build_table, risk_columns
from pipelines import experience
from pipelines.dataset import join
from serving.history import Instrument
from serving.ledger import LedgerReader, rows
from serving.session import rules_of
from serving.worker import Worker
from sources.files import read_parquet
from training.algorithm import quiet
from training.course import Course
from training.environment import MarketBatch
from training.learn import build, train
from training.splits import Window, divide, walk_forward
from training.transitions import Transitions

SETTINGS = world.params(
    agents={
        "solo": {"symbol": "SOLO", "algorithm": "sac", "actions": "continuous"},
        "pair": {"symbol": "FUND", "train_on": "INDEX", "algorithm": "sac",
                 "actions": "continuous"},
    },
    costs={"slippage_bps": 3.0},
)  # fmt: skip
SESSIONS = 2


def dataset_of(settings: Params, agent: str, **changes: float) -> Dataset:
    """Return what ``agent`` trades; ``changes``: closes by ISO date."""
    entry, spec = settings.agent(agent), world.spec_of(settings)
    bars = world.market()[Instrument("bundled", entry.symbol, "1d")].copy()
    signal = world.market()[Instrument("bundled", entry.signal_symbol, "1d")]
    bars = bars.join(risk_columns(bars, spec, "1d"))
    for date, close in changes.items():
        bars.loc[pd.Timestamp(date, tz="UTC"), "close"] = close
    return join(entry.symbol, entry.signal_symbol, bars, build_table(signal, spec, "1d"), spec)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Return a home whose ledger has two sessions over the same bars."""
    home = Home(tmp_path_factory.mktemp("lived"))
    shelf = world.shelf_with_both(home.root / "shelf", SETTINGS)
    for _ in range(SESSIONS):
        feed = world.feed()
        Worker(home, SETTINGS, ("solo", "pair"), feed, shelf=shelf, environment={}).run()
    return home


def test_life_stands_beside_history_once_for_every_bar(home: Home) -> None:
    traded = dataset_of(SETTINGS, "solo")
    found = experience.gather(home, SETTINGS, "solo", traded)
    merged = found.merged
    assert found.live_bars == world.PAPER_BARS  # of two sessions that saw the same bars
    assert merged.index.is_unique
    assert merged.index.is_monotonic_increasing
    assert len(merged) == len(traded)
    assert set(merged.columns) >= {"price", "volume", "sentiment", "action", "reward"}
    assert set(merged.columns) >= set(traded.spec.columns)
    live = merged[merged["provenance"] == "live"]
    assert list(live.index) == list(merged.index[-world.PAPER_BARS :])
    assert set(live["session"]) == {float(SESSIONS)}
    assert live["reward"].notna().sum() == world.PAPER_BARS - 1
    assert merged[merged["provenance"] == "history"]["action"].isna().all()
    assert np.array_equal(merged[list(traded.spec.columns)], traded.table, equal_nan=True)


def test_the_table_is_kept_with_its_hash(home: Home) -> None:
    found = experience.gather(home, SETTINGS, "solo", dataset_of(SETTINGS, "solo"))
    path, sha256 = experience.write(home, "solo", found)
    assert experience.write(home, "solo", found) == (path, sha256)
    pd.testing.assert_frame_equal(
        read_parquet(path)[0], found.merged, check_freq=False, check_index_type=False
    )


def test_prices_seen_live_are_those_of_the_store(home: Home) -> None:
    found = experience.gather(home, SETTINGS, "solo", dataset_of(SETTINGS, "solo"))
    assert (found.differing_prices, found.worst_price) == (0, "")


def test_a_price_that_the_vendor_has_changed_since_is_told(home: Home) -> None:
    traded = dataset_of(SETTINGS, "solo")
    time = pd.Timestamp(traded.market.time[-5], tz="UTC")
    altered = dataset_of(SETTINGS, "solo", **{f"{time:%Y-%m-%d}": 12.5})
    found = experience.gather(home, SETTINGS, "solo", altered)
    assert found.differing_prices == 1
    assert found.worst_price.startswith(f"{time.isoformat()}: ")
    assert found.worst_price.endswith("live, 12.5 stored")
    assert "1 prices differ" in str(found)


def test_live_bars_that_the_dataset_has_not_yet_are_kept_and_counted(home: Home) -> None:
    traded = dataset_of(SETTINGS, "solo")
    found = experience.gather(home, SETTINGS, "solo", traded.rows(0, len(traded) - 6))
    assert (found.live_bars, found.unknown_bars) == (world.PAPER_BARS, 6)
    newest = found.merged.iloc[-6:]
    assert newest["price"].tolist() == traded.market.close[-6:, 0].tolist()
    assert newest["volume"].tolist() == traded.market.volume[-6:, 0].tolist()
    assert not newest["known"].any()


def test_measured_slippage_is_what_the_fills_paid_against_the_open(home: Home) -> None:
    found = experience.gather(home, SETTINGS, "solo", dataset_of(SETTINGS, "solo"))
    assert found.fills > 0
    assert found.slippage_bps == pytest.approx(3.0, rel=1e-9)  # the paper broker's own
    figures = found.figures(SETTINGS.costs.slippage_bps)
    assert figures["measured_slippage_bps"] == found.slippage_bps
    assert figures["assumed_slippage_bps"] == 3.0


def test_without_a_ledger_there_is_history_alone(tmp_path: Path) -> None:
    traded = dataset_of(SETTINGS, "solo")
    found = experience.gather(Home(tmp_path), SETTINGS, "solo", traded)
    assert (found.live_bars, found.fills, len(found.transitions)) == (0, 0, 0)
    assert len(found.merged) == len(traded)
    assert found.figures(3.0)["measured_slippage_bps"] is None


def test_a_transition_is_what_the_agent_saw_and_what_came_of_it(home: Home) -> None:
    traded = dataset_of(SETTINGS, "solo")
    lived = experience.gather(home, SETTINGS, "solo", traded).transitions
    assert len(lived) == SESSIONS * (world.PAPER_BARS - 1)
    shelf = world.FolderShelf(home.root / "shelf")
    scaled = shelf.load("solo", shelf.production("solo")).scaler.transform(traded.table)
    observed = observe_rows(scaled, lived.row, traded.spec.window, lived.account)
    following = observe_rows(scaled, lived.row + 1, traded.spec.window, lived.next_account)
    with LedgerReader(home.ledger) as ledger:
        decisions = ledger.rows(rows.Decision, agent="solo", session=1)
        books = ledger.rows(rows.Equity, agent="solo", session=1)
    for number in range(world.PAPER_BARS - 1):
        assert observed[number].tobytes() == decisions[number].observation
        assert following[number].tobytes() == decisions[number + 1].observation
        assert lived.weight[number] == decisions[number].weight
        growth = books[number + 1].equity / books[number].equity
        assert lived.log_return[number] == pytest.approx(np.log(growth), abs=1e-12)
        assert lived.drawdown[number] == books[number + 1].drawdown


def test_an_agent_that_learns_on_another_symbol_replays_nothing(home: Home) -> None:
    found = experience.gather(home, SETTINGS, "pair", dataset_of(SETTINGS, "pair"))
    assert found.live_bars > 0
    assert len(found.transitions) == 0


def transitions(row: np.ndarray) -> Transitions:
    """Return made-up transitions at ``row``, which are told apart by their log return."""
    m, a = len(row), len(ACCOUNT_COLUMNS)
    account = np.zeros((m, a), np.float32)
    columns = {field.name: row * 1e-4 for field in fields(Transitions)}
    columns |= {"row": row, "account": account, "next_account": account}
    return Transitions(**columns | {"alive": np.ones(m, bool), "weight": np.full(m, 0.75)})


def course(algorithm: str = "sac", lived: Transitions | None = None) -> Course:
    agents = {"solo": {"symbol": "SOLO", "algorithm": algorithm, "actions": "continuous"}}
    settings = world.params(agents=agents)
    learned = dataset_of(settings, "solo")
    timeline = divide(learned.first_row, len(learned), settings.split, 1)
    return Course("solo", settings, learned, timeline, rules_of(settings, "solo"), 1.0, None, lived)


def test_a_lesson_holds_no_transition_beyond_its_training_rows() -> None:
    whole = course()
    everywhere = transitions(np.arange(len(whole.learned) - 1))
    made = replace(whole, lived=everywhere)
    values = made.space.usual
    lesson = made.lesson(values, 0)
    train_rows = made.timeline.train
    assert lesson.lived is not None
    assert lesson.lived.row.tolist() == list(range(train_rows.start, train_rows.stop - 1))
    for fold in walk_forward(made.timeline, 2, made.params.split, 1):
        part = made.lesson(values, 0, fold).lived
        assert part is not None
        assert part.row.max() + 1 < fold.train.stop


def test_what_was_lived_through_after_the_training_rows_changes_no_study() -> None:
    plain = course()
    train_rows: Window = plain.timeline.train
    later = transitions(np.arange(train_rows.stop - 1, len(plain.learned) - 1))
    inside = transitions(np.arange(train_rows.start, train_rows.start + 3))
    assert replace(plain, lived=later).identity == plain.identity
    assert replace(plain, lived=inside).identity != plain.identity


def test_ppo_is_taught_no_decision_of_another_policy() -> None:
    made = course("ppo", transitions(np.arange(300, 320)))
    assert made.lesson(made.space.usual, 0).lived is None
    assert made.replayed == 0


def test_the_replay_of_sac_begins_with_what_was_lived_through() -> None:
    lived = transitions(np.arange(100, 140))
    lesson = small_lesson(actions="continuous", hyperparameters=SMALL_SAC, lived=lived)
    with quiet():
        algorithm = build(lesson)
    replay = algorithm._replay  # type: ignore[attr-defined]
    batch = replay.sample(1000, np.random.default_rng(0))
    assert replay.size == 40
    expected = lived.log_return * lesson.environment.reward_scale
    assert set(batch["rewards"]) == set(expected.astype(np.float32))
    assert set(batch["actions"].ravel()) == {np.float32(0.5)}  # × 1.5 is the weight of 0.75
    market: MarketBatch = algorithm._market  # type: ignore[attr-defined]
    seen = market.observation(lived.row, lived.account)
    assert {row.tobytes() for row in batch["obs"]} <= {row.tobytes() for row in seen}


def test_what_was_lived_through_changes_what_is_learned() -> None:
    lesson = small_lesson(actions="continuous", hyperparameters=SMALL_SAC)
    lived = transitions(np.arange(100, 140))
    plain, again = train(lesson), train(replace(lesson, lived=lived))
    assert plain.weights_sha256 != again.weights_sha256
    assert train(replace(lesson, lived=lived)).weights_sha256 == again.weights_sha256
