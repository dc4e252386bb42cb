"""Stage ``featurize``: validated bars to a feature table and the columns that risk needs.

``python -m pipelines.featurize AAPL``. Reads ``data/validated/<name>.parquet`` (and the VIX, where
there is one), writes ``data/features/<name>.parquet``, byte for byte the same each time, and
``<name>.json``, which says how the table was made.

VIX columns join only where they cost no row: the VIX must be known on every bar on which all other
columns are. A column that knows what comes after its bar stops the stage, and nothing is written
(``pipelines/feature_proof.py``).
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from core.errors import CorruptFile, DataError
from core.home import Home
from core.settings import Interval, Params
from features.spec import FeatureSpec, spec_from
from features.table import build_table, risk_columns
from pipelines.feature_proof import require_honest_features
from pipelines.stage import main
from sources.catalogue import ingest_command
from sources.files import parquet_bytes, read_parquet, write_whole
from sources.manifest import VIX_NAMES

YAHOO_VIX = VIX_NAMES[1]
REMAKE = "delete it and run `dvc repro`"


def validated_path(home: Home, name: str) -> Path:
    """Return where the validated bars of a dataset (``AAPL``, ``SPY-5m``) lie."""
    return home.data / "validated" / f"{name}.parquet"


def features_path(home: Home, name: str) -> Path:
    """Return where the features of a dataset lie; its ``.json`` lies beside it."""
    return home.data / "features" / f"{name}.parquet"


def interval_of(name: str) -> Interval:
    """Return the interval a dataset's name ends in: ``SPY-5m`` is 5m, ``BRK-B`` is 1d."""
    found: Interval
    for found in get_args(Interval):
        if name.endswith(f"-{found}"):
            return found
    return "1d"


def told_of(home: Home, name: str) -> str:
    """Return one line about the features of a dataset: how many, and what became of the VIX."""
    path = features_path(home, name).with_suffix(".json")
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        first, last = (made[key][:10] for key in ("first", "last"))
        return (
            f"{len(made['columns'])} features of {made['rows']} bars, {first} to {last}; "
            f"VIX {made['vix']}"
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{path}: does not describe features ({error!r}); {REMAKE}") from error


def validated_bars(home: Home, name: str, source: str = "bundled") -> pd.DataFrame:
    """Read the validated bars of a dataset; raise ``DataError`` when there are none yet.

    ``source``: where they would come from.
    """
    path = validated_path(home, name)
    if not path.exists():
        interval = interval_of(name)
        symbol = name.removesuffix(f"-{interval}")
        raise DataError(
            f"{path}: no validated bars of {symbol} yet; run "
            f"{ingest_command(symbol, source, interval)}"
        )
    return read_parquet(path, remedy=REMAKE)[0]


def vix_closes(home: Home) -> pd.Series | None:
    """Return the validated closes of the VIX, or None where it was never ingested."""
    for name in VIX_NAMES:
        if validated_path(home, name).exists():
            return validated_bars(home, name)["close"]
    return None


def featurize(
    bars: pd.DataFrame, params: Params, interval: Interval, vix: pd.Series | None = None
) -> tuple[pd.DataFrame, FeatureSpec, str]:
    """Return features and ``RISK_COLUMNS`` of ``bars``, the spec that made them, and what became
    of the VIX."""
    spec = spec_from(params, interval)
    table = build_table(bars, spec, interval)
    with_vix = spec_from(params, interval, vix=True)
    told = _unwanted(params, interval, vix)
    if not told and vix is not None:
        wide = build_table(bars, with_vix, interval, vix)
        complete = np.isfinite(table.to_numpy()).all(axis=1)
        lacking = complete & ~np.isfinite(wide.to_numpy()).all(axis=1)
        if lacking.any():
            told = (
                f"left out: known {vix.index[0].date()} to {vix.index[-1].date()}, so that "
                f"{lacking.sum()} of {complete.sum()} bars would be lost, the first "
                f"{bars.index[lacking][0].date()}; ingest more of its history"
            )
        else:
            table, spec, told = wide, with_vix, "joined"
    return table.join(risk_columns(bars, spec, interval)), spec, told


def _unwanted(params: Params, interval: Interval, vix: pd.Series | None) -> str:
    """Return why nobody needs to look at the VIX, "" where one must."""
    if not params.features.include_vix:
        return "left out: features.include_vix is false"
    if not spec_from(params, interval, vix=True).uses_vix:
        return "left out: it joins daily bars only"
    if vix is None:
        return f"left out: there is none; run {ingest_command(YAHOO_VIX, 'yfinance', interval)}"
    return ""


def run(home: Home, params: Params, name: str) -> None:
    """Write features and their description.

    Raises ``DataError`` without validated bars, ``FutureLeak`` where a column knows the future.
    """
    bars = validated_bars(home, name)
    vix = None if name in VIX_NAMES else vix_closes(home)
    table, spec, told = featurize(bars, params, interval_of(name), vix)
    require_honest_features(name, bars, spec, vix)
    content = parquet_bytes(table)
    description = {
        **spec.table_part,
        "rows": len(table),
        "first": table.index[0].isoformat() if len(table) else None,
        "last": table.index[-1].isoformat() if len(table) else None,
        "vix": told,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    path = features_path(home, name)
    write_whole(path, content)
    text = json.dumps(description, indent=2) + "\n"
    write_whole(path.with_suffix(".json"), text.encode())


if __name__ == "__main__":
    sys.exit(main(run))
