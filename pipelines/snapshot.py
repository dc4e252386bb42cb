"""Stage ``snapshot``: the bars a manifest names, out of the store, as one Parquet file.

``python -m pipelines.snapshot AAPL``. Reads the manifest and the store, writes
``data/snapshot/<name>.parquet``. What the bundled and planted sources give is the same for ever, so
a store that lacks it (a fresh clone) fetches it here.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from core.errors import NotEnoughData
from core.home import Home
from core.settings import Params
from pipelines.stage import main
from sources import store
from sources.catalogue import GENERATED, make_source
from sources.files import parquet_bytes, write_whole
from sources.manifest import Manifest, read_bars


def snapshot_path(home: Home, name: str) -> Path:
    """Return where the snapshot of a dataset (``AAPL``, ``SPY-5m``) lies."""
    return home.data / "snapshot" / f"{name}.parquet"


def run(home: Home, params: Params, name: str) -> None:
    """Write the snapshot of the dataset ``name``; raise ``NotEnoughData`` if it is not stored."""
    manifest = Manifest.load(home.workspace / "manifests" / f"{name}.json")
    try:
        bars = read_bars(home, manifest)
    except NotEnoughData:
        if manifest.source not in GENERATED:
            raise
        last = datetime.fromisoformat(manifest.last).astimezone(UTC)
        source = make_source(manifest.source)
        store.append(
            home, manifest.source, source.fetch(manifest.symbol, manifest.interval, None, last)
        )
        bars = read_bars(home, manifest)
    write_whole(snapshot_path(home, name), parquet_bytes(bars))


if __name__ == "__main__":
    sys.exit(main(run))
