"""A better challenger, from the first bar to Production: worker, shadow, registry and history.

Production is never in, its challenger always, and the market rises: the sequential test itself
must see it, promote through the registry, and the worker trade the new version without a break.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import serving_kit as world
from registry_kit import home_with_mlflow

from core.home import Home
from core.settings import Params
from features.scaler import Scaler
from features.table import build_table
from registry import models, promotion
from registry.baselines import BaselineKind, make_baseline
from registry.bundle import save_bundle
from registry.card import ActionSpace, Card
from serving import ring
from serving.challengers import RegistryChallengers
from serving.feeds import ReplayFeed
from serving.history import FeedBar, Instrument
from serving.ledger import LedgerReader, rows
from serving.ledger.shadow_rows import ShadowEnd
from serving.shelf import RegistryShelf
from serving.worker import Worker

SOLO = Instrument("bundled", "SOLO", "1d")
BEFORE = datetime(2026, 3, 2, tzinfo=UTC)
HALF = 25


def rising() -> pd.DataFrame:
    """Return bars of which the newest close 3 % higher each, give or take."""
    bars = world.bars(1, volume=3e6).assign(split_ratio=1.0, dividend=0.0)
    moves = 0.03 + np.random.default_rng(0).normal(0.0, 0.004, world.PAPER_BARS)
    close = bars["close"].to_numpy().copy()
    close[-world.PAPER_BARS :] = close[-world.PAPER_BARS - 1] * np.exp(np.cumsum(moves))
    opened = np.concatenate([close[:1], close[:-1]])
    return bars.assign(
        open=opened, close=close, high=np.maximum(opened, close), low=np.minimum(opened, close)
    )


class Waiting(ReplayFeed):
    """Shows the second half of its bars when version 2 is Production in the worker's ledger."""

    def __init__(self, home: Home, bars: pd.DataFrame) -> None:
        super().__init__({SOLO: bars}, world.PAPER_BARS, 0.0)
        self._home = home

    def stream(
        self, after: Mapping[Instrument, datetime], stop: threading.Event
    ) -> Iterator[tuple[FeedBar, ...]]:
        for number, bars in enumerate(super().stream(after, stop)):
            deadline = time.monotonic() + 120.0
            while number == HALF and not rows_of(self._home, rows.AliasChange, "solo", "2"):
                if time.monotonic() > deadline:
                    raise TimeoutError("version 2 did not become Production")
                time.sleep(0.02)
            yield bars


def rows_of(
    home: Home, kind: type[rows.RowType], agent: str, version: str | None = None
) -> list[rows.RowType]:
    of = {"agent": agent} | ({"model_version": version} if version else {})
    with LedgerReader(home.ledger) as ledger:
        return ledger.rows(kind, **of)


def register(home: Home, settings: Params, kind: BaselineKind, algorithm: str) -> int:
    """Register a baseline, as a model that was trained where ``algorithm`` says so."""
    spec = world.spec_of(settings)
    table = build_table(rising().iloc[: -world.PAPER_BARS], spec, "1d").dropna().to_numpy()
    scaler = Scaler.fit(table, spec)
    card = Card(
        agent="solo", algorithm=algorithm, symbols=("SOLO",), signal_symbol="SOLO", interval="1d",
        action_space=ActionSpace("discrete", (0.0, 1.0)), dataset_sha256="d" * 64,
        commit="c" * 40, seed=7, created_at=BEFORE.isoformat(),
    )  # fmt: skip
    folder = home.root / "made" / kind
    save_bundle(folder, make_baseline(kind, spec, scaler, 0), spec, scaler, card)
    return models.register(home, "solo", folder).number


def test_a_better_challenger_becomes_production_of_a_running_worker(tmp_path: Path) -> None:
    settings = world.params(
        shadow={"alpha": 0.05, "promotes": True}, agents={"solo": {"symbol": "SOLO"}}, risk={}
    )
    home = home_with_mlflow(tmp_path / "home")
    assert register(home, settings, "flat", "flat") == 1
    assert register(home, settings, "buy_and_hold", "ppo") == 2
    promotion.install(home, "solo", 1, BEFORE)
    promotion.challenge(home, "solo", 2, BEFORE)

    Worker(
        home,
        settings,
        ("solo",),
        Waiting(home, rising()),
        shelf=RegistryShelf(home),
        challengers=RegistryChallengers(home),
        environment={},
    ).run()

    # The test said so, by its own wealth: no threshold but the one of params.yaml.
    (end,) = [one for one in rows_of(home, ShadowEnd, "solo") if one.verdict == "promote"]
    assert (end.model_version, end.production_version) == ("2", "1")
    assert 5 < end.bars <= HALF
    # The ordinary path: aliases, and a row of the history that nobody rewrites.
    assert models.aliases(home, "solo") == {"Production": 2, "Previous": 1}
    change = promotion.production_history(home, "solo")[-1]
    assert (change.number, change.replaced, change.by) == (2, 1, "shadow test")
    assert change.reason == ring.figures(end)
    assert (change.dataset_sha256, change.commit) == ("d" * 64, "c" * 40)
    assert promotion.audit(home, ["solo"]) == []
    # The worker: every bar decided, the first half by 1, the second by 2, which went in.
    versions = [one.model_version for one in rows_of(home, rows.Decision, "solo")]
    assert versions == ["1"] * HALF + ["2"] * (world.PAPER_BARS - HALF)
    bought = rows_of(home, rows.Fill, "solo")
    assert bought
    assert rows_of(home, rows.Equity, "solo")[-1].equity > settings.account.cash
