"""Datasets for training, backtest and trading: validated bars joined with features.

Owns the join on a common clock and the check that features fit bars, settings and code. Writes
nothing.
"""

import hashlib
import json

import numpy as np
import pandas as pd

from core.bars import RISK_COLUMNS, Market
from core.errors import CorruptFile, DataError
from core.home import Home
from core.settings import Agent, Params
from features.dataset import Dataset
from features.spec import FeatureSpec, spec_from
from features.table import build_table, risk_columns
from pipelines.featurize import features_path, interval_of, validated_bars, vix_closes
from sources.actions import carry_actions
from sources.files import read_parquet
from sources.manifest import dataset_name

REPRO = "run `dvc repro`"
LEAST_COMMON = 0.9  # of the bars since both symbols exist must be on the common clock


def load_dataset(
    home: Home, params: Params, agent: str, spec: FeatureSpec | None = None
) -> Dataset:
    """Return what ``agent`` trades, with the features of its signal symbol.

    ``spec``: of a bundle, to see the same bars as that policy does; its features are computed from
    the validated bars. Else the stage's features are read. Raises ``DataError`` where stages have
    not run, have run with other settings, or the two symbols have too few bars in common.
    """
    entry = params.agent(agent)
    return _load(home, params, entry, entry.symbol, spec)


def load_training_dataset(
    home: Home, params: Params, agent: str, spec: FeatureSpec | None = None
) -> Dataset:
    """Return what ``agent`` learns on: its signal symbol, traded and looked at."""
    entry = params.agent(agent)
    return _load(home, params, entry, entry.signal_symbol, spec)


def _load(
    home: Home, params: Params, entry: Agent, symbol: str, spec: FeatureSpec | None
) -> Dataset:
    signal_symbol, interval, source = entry.signal_symbol, entry.interval, entry.source
    name, signal_name = dataset_name(symbol, interval), dataset_name(signal_symbol, interval)
    bars = validated_bars(home, name, source)
    if spec is None:
        features, spec = load_features(home, params, signal_name)
        risk = load_features(home, params, name)[0]
    else:
        spec.require_buildable()
        vix = vix_closes(home) if spec.uses_vix else None
        features = build_table(validated_bars(home, signal_name, source), spec, spec.interval, vix)
        risk = risk_columns(bars, spec, spec.interval)
    if not bars.index.equals(risk.index):
        raise DataError(f"{name}: features and validated bars differ in their times; {REPRO}")
    return join(symbol, signal_symbol, bars.join(risk[list(RISK_COLUMNS)]), features, spec)


def load_features(home: Home, params: Params, name: str) -> tuple[pd.DataFrame, FeatureSpec]:
    """Read the stage's features and ``RISK_COLUMNS`` and return them with today's spec.

    Raises ``DataError`` where they are missing or made with other settings, ``CorruptFile`` where
    they are not what the stage wrote.
    """
    path = features_path(home, name)
    try:
        content = path.read_bytes()
        made = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no features of {name} yet; {REPRO}") from None
    except (ValueError, OSError) as error:
        raise CorruptFile(f"{path.with_suffix('.json')}: cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != made.get("sha256"):
        raise CorruptFile(f"{path}: is not what `featurize` wrote; delete it and {REPRO}")
    for vix in (False, True):
        spec = spec_from(params, interval_of(name), vix)
        if all(made.get(key) == value for key, value in spec.table_part.items()):
            return read_parquet(path)[0], spec
    raise DataError(
        f"{path}: features were made with other settings or another Ratchet than these; {REPRO}"
    )


def join(
    symbol: str, signal_symbol: str, bars: pd.DataFrame, features: pd.DataFrame, spec: FeatureSpec
) -> Dataset:
    """Put bars (with ``RISK_COLUMNS``) and features on the clock of the bars both have.

    Splits and dividends of bars that drop out move to the next bar that stays.
    """
    since = max(bars.index[0], features.index[0])
    until = min(bars.index[-1], features.index[-1])
    kept = bars.index.isin(features.index)
    overlap = (bars.index >= since) & (bars.index <= until)
    if not overlap.any() or kept[overlap].mean() < LEAST_COMMON:
        raise DataError(
            f"{symbol} and {signal_symbol}: {int(kept.sum())} of {int(overlap.sum())} bars in "
            f"common; an agent and its train_on symbol must trade at the same times"
        )
    common = carry_actions(bars, kept)
    market = Market.from_frames({symbol: common})
    table = features.loc[common.index, list(spec.columns)].to_numpy(np.float64)
    return Dataset.of(symbol, signal_symbol, market, table, spec)
