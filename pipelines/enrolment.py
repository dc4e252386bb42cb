"""Enrolment: a baseline registered and made Production, to be traded like any model.

Owns the order: refuse first, then build the bundle, register, install or promote. The first
Production version is installed; later ones are an override by a named person with a reason, for
no gate has judged them.
"""

import tempfile
from datetime import datetime
from pathlib import Path

from core.errors import PromotionRefused
from core.home import Home
from core.settings import Params
from features.dataset import Dataset
from features.scaler import Scaler
from pipelines import contest, record
from pipelines.dataset import load_dataset
from registry import models, promotion
from registry.baselines import BaselineKind, make_baseline
from registry.bundle import save_bundle
from registry.models import Version
from registry.promotion import Change
from training.splits import Window


def enrol(
    home: Home,
    params: Params,
    agent: str,
    kind: BaselineKind,
    *,
    seed: int = 0,
    by: str,
    reason: str | None = None,
    now: datetime,
) -> Change:
    """Register a baseline and make it Production.

    Raises ``PromotionRefused`` where it would replace a trained model and no reason is given;
    then nothing has been registered. Raises ``DataError`` where the agent has no dataset.
    """
    champion = contest.champion_of(home, agent)
    if champion is not None and not champion.baseline and not (reason or "").strip():
        raise PromotionRefused(
            f"{agent}: version {champion.number} is Production and was trained; to put the "
            f"baseline {kind} in its place give a reason: --reason TEXT"
        )
    traded = load_dataset(home, params, agent)
    version = register_baseline(home, params, agent, traded, kind, now, seed)
    if champion is None:
        return promotion.install(home, agent, version.number, now)
    why = reason or f"baseline {kind} with seed {seed}, registered by hand"
    return promotion.promote(home, agent, version.number, now, by, why)


def register_baseline(
    home: Home,
    params: Params,
    agent: str,
    traded: Dataset,
    kind: BaselineKind,
    now: datetime,
    seed: int = 0,
) -> Version:
    """Register a baseline that sees all but the newest ``split.paper_bars`` bars."""
    rows = Window(traded.first_row, len(traded) - params.split.paper_bars)
    scaler = Scaler.fit(traded.table[rows.start : rows.stop], traded.spec)
    policy = make_baseline(kind, traded.spec, scaler, seed)
    card = record.baseline_card(home, params, agent, traded, kind, now, seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "bundle"
        save_bundle(folder, policy, traded.spec, scaler, card)
        return models.register(home, agent, folder)
