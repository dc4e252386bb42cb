"""Manifests: which bars a dataset is made of, by content.

Owns ``manifests/<symbol>.json``, the file DVC depends on. It names bars by their hash and not by
when or where they were ingested: the same bars give the same manifest in every home.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from core.bars import BAR_COLUMNS
from core.errors import ConfigError, CorruptFile, NotEnoughData
from core.home import Home
from core.settings import Interval, Source
from sources import store
from sources.catalogue import ingest_command
from sources.files import write_whole
from sources.port import symbol_name

VIX_NAMES = ("VIX", "^VIX")  # as the bundled source and Yahoo call it
LIST = "manifests/datasets.yaml"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The bars of one symbol up to ``last``, as traded."""

    symbol: str
    source: Source
    interval: Interval
    rows: int
    first: str  # ISO 8601
    last: str  # ISO 8601
    sha256: str  # of times and BAR_COLUMNS

    @classmethod
    def of(cls, symbol: str, source: Source, interval: Interval, bars: pd.DataFrame) -> "Manifest":
        """Describe a bar frame."""
        first, last = bars.index[0].isoformat(), bars.index[-1].isoformat()
        return cls(symbol, source, interval, len(bars), first, last, content_sha256(bars))

    @classmethod
    def load(cls, path: Path) -> "Manifest":
        """Read a manifest; raise ``ConfigError`` when there is none, ``CorruptFile`` when bad."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ConfigError(
                f"{path}: no such manifest; run `ratchet ingest SYMBOL`, which makes it"
            ) from None
        except (ValueError, TypeError) as error:
            raise CorruptFile(
                f"{path}: is no manifest ({error}); run `ratchet ingest SYMBOL`, which renews it"
            ) from error

    def save(self, path: Path) -> None:
        """Write the manifest, whole or not at all."""
        write_whole(path, (json.dumps(asdict(self), indent=2) + "\n").encode())


def dataset_name(symbol: str, interval: str) -> str:
    """Return the name under which a symbol's datasets and manifest lie: ``AAPL``, ``SPY-5m``."""
    name = symbol_name(symbol)
    return name if interval == "1d" else f"{name}-{interval}"


def enlist(home: Home, manifest: Manifest) -> None:
    """Save the manifest of a dataset and list it in ``manifests/datasets.yaml`` for DVC."""
    path = manifest_path(home, manifest.symbol, manifest.interval)
    manifest.save(path)
    names = sorted(file.stem for file in path.parent.glob("*.json"))
    listed = "datasets:\n" + "".join(f'  - "{name}"\n' for name in names)
    # Every feature table may carry VIX columns: DVC must know when the VIX changes.
    vix = next((f"data/validated/{name}.parquet" for name in VIX_NAMES if name in names), LIST)
    write_whole(home.workspace / LIST, f"{listed}vix: {vix}\n".encode())


def manifest_path(home: Home, symbol: str, interval: str) -> Path:
    """Return where the manifest of a symbol lies in this home's workspace."""
    return home.workspace / "manifests" / f"{dataset_name(symbol, interval)}.json"


def content_sha256(bars: pd.DataFrame) -> str:
    """Hash times (ns) and BAR_COLUMNS (float64, little endian) of a bar frame."""
    digest = hashlib.sha256(pd.DatetimeIndex(bars.index).as_unit("ns").asi8.astype("<i8").tobytes())
    for name in BAR_COLUMNS:
        digest.update(np.ascontiguousarray(bars[name], dtype="<f8").tobytes())
    return digest.hexdigest()


def read_bars(home: Home, manifest: Manifest) -> pd.DataFrame:
    """Return the very bars a manifest names, from whichever vintage of the store has them.

    Raises ``NotEnoughData`` where no vintage does.
    """
    last = pd.Timestamp(manifest.last)
    key = (manifest.source, manifest.symbol, manifest.interval)
    for delivered_at in reversed(store.vintages(home, *key)):
        bars = store.read(home, *key, as_of=delivered_at)
        bars = bars[bars.index <= last]
        if len(bars) == manifest.rows and content_sha256(bars) == manifest.sha256:
            return bars
    raise NotEnoughData(
        f"{manifest.symbol}: the store {home.store} has no vintage of the {manifest.rows} bars to "
        f"{last.date()} that the manifest names ({manifest.sha256[:12]}); run "
        f"{ingest_command(manifest.symbol, manifest.source, manifest.interval)}"
    )
