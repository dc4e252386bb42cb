"""Which sources there are, how to make one by name, and how a person asks one for a symbol."""

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
    if name == "ibkr":
        from sources.ibkr import Ibkr

        return Ibkr()
    raise ConfigError(f"no source {name!r}; known: bundled, csv, yfinance, ibkr, planted")


def ingest_command(symbol: str, source: str = "bundled", interval: str = "1d") -> str:
    """Return what a person types to ingest a symbol, for error messages."""
    options = {
        " --source yfinance": source == "yfinance",
        " --source ibkr": source == "ibkr",
        " --source planted": source == "planted",
        " --source csv --path FILE": source == "csv",
        f" --interval {interval}": interval != "1d",
    }
    return f"`ratchet ingest {symbol}{''.join(o for o, given in options.items() if given)}`"
