"""Which sources there are, and how to make one by name."""

from pathlib import Path

from core.errors import ConfigError
from sources.port import Source

GENERATED = ("bundled", "planted")  # need neither network nor file: they can always be asked again


def make_source(name: str, path: Path | None = None) -> Source:
    """Return the source ``name``; ``path`` is the file of ``csv``. Raises ``ConfigError``."""
    if path is not None and name != "csv":
        raise ConfigError(f"source {name} takes no file; use --source csv for {path}")
    if name == "bundled":
        from sources.bundled import Bundled

        return Bundled()
    if name == "planted":
        from sources.planted import Planted

        return Planted()
    if name == "csv":
        from sources.csv import CsvFile

        if path is None:
            raise ConfigError("source csv needs a file: --path FILE")
        return CsvFile(path)
    if name == "yfinance":
        from sources.yfinance import Yahoo

        return Yahoo()
    raise ConfigError(f"no source {name!r}; known: bundled, csv, yfinance, planted")
