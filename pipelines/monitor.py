"""Monitor: the newest features of an agent against what its Production model was trained on.

Owns which rows are compared and where the alarm history and the report lie. Whether they differ
is for ``pipelines/drift.py`` to say, what follows for the flow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from core.errors import NotEnoughData
from core.home import Home
from core.progress import Progress, Report, silent
from core.settings import Params
from features.dataset import Dataset
from pipelines.dataset import load_training_dataset
from pipelines.drift import AlarmHistory, DriftReport, check_drift
from registry.bundle import Bundle, load_bundle
from registry.card import Card
from sources.files import write_whole


@dataclass(frozen=True, slots=True)
class Production:
    """The version an agent trades with."""

    number: int
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Monitored:
    """What one look for drift found."""

    agent: str
    version: int
    drift: bool  # retrain
    reasons: tuple[str, ...]  # sentences for a person
    judged: DriftReport | None  # None: no bar is newer than the training window
    reports: Mapping[str, Path]  # name -> HTML file


def production(home: Home, agent: str) -> Production:
    """Return the Production version of an agent from the registry."""
    from registry import models  # MLflow takes seconds to load

    copy = models.production(home, agent)
    return Production(copy.number, load_bundle(copy.folder, copy.bundle_sha256))


def run(
    home: Home,
    params: Params,
    agent: str,
    *,
    now: datetime,
    report: Report = silent,
    find: Callable[[Home, str], Production] = production,
) -> Monitored:
    """Compare the newest window with the training window; remember the alarm for the next time.

    Raises ``UnknownVersion`` without a Production version, ``DataError`` without a dataset, and
    ``NotEnoughData`` where a window is too short.
    """
    report(Progress("drift", 0.0, f"{agent}: reading features"))
    found = find(home, agent)
    dataset = load_training_dataset(home, params, agent, found.bundle.spec)
    training, recent = rows_of(dataset, found.bundle.card, params)
    if recent.index[-1] <= training.index[-1]:
        nothing = f"no bar is newer than {training.index[-1].date()}, the last trained on"
        return Monitored(agent, found.number, False, (nothing,), None, {})
    path = home.drift / f"{agent}.json"
    before = AlarmHistory.from_json(path.read_text()) if path.exists() else AlarmHistory()
    before = before.of_model(str(found.number))
    html = home.reports / agent / "drift.html"
    report(Progress("drift", 0.3, f"{agent}: comparing {len(training)} training rows"))
    judged = check_drift(training, recent, params.monitor, now, before, html)
    write_whole(path, judged.history.to_json().encode())
    report(Progress("drift", 1.0, f"{agent}: {judged.reasons[-1]}"))
    return Monitored(agent, found.number, judged.drift, judged.reasons, judged, {"drift": html})


def rows_of(dataset: Dataset, card: Card, params: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the feature rows the model was trained on, and the newest window.

    A baseline was trained on nothing: it is compared with the research rows, on which a candidate
    would be trained. Raises ``NotEnoughData`` where no bar of the training window is left.
    """
    time = pd.DatetimeIndex(dataset.market.time, name="time").tz_localize("UTC")
    table = pd.DataFrame(dataset.table, index=time, columns=list(dataset.spec.columns))
    table = table.iloc[dataset.first_row :]
    if card.train_first is None or card.train_last is None:
        research = params.split.train + params.split.validation
        training = table.iloc[: int(np.floor(len(table) * research))]
    else:
        first, last = pd.Timestamp(card.train_first), pd.Timestamp(card.train_last)
        training = table[(table.index >= first) & (table.index <= last)]
    if training.empty:
        raise NotEnoughData(
            f"{card.agent}: no features between {card.train_first} and {card.train_last}, the "
            "training window of the Production version; ingest that history again"
        )
    return training, table.iloc[-params.monitor.window_bars :]
