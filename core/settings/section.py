"""What every section of params.yaml is made of: strict keys, symbols, names, intervals, sources."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from core.errors import ConfigError

Interval = Literal["1d", "1h", "15m", "5m", "1m", "5s"]
INTERVAL_SECONDS = {"1h": 3600, "15m": 900, "5m": 300, "1m": 60, "5s": 5}
Source = Literal["bundled", "csv", "yfinance", "ibkr", "planted"]


def check_symbol(symbol: str) -> str:
    """Return ``symbol``; raise ``ConfigError`` if it cannot name files: it must lead nowhere."""
    if not re.fullmatch(r"[A-Za-z0-9^_][A-Za-z0-9^._=-]*", symbol):
        raise ConfigError(
            f"{symbol!r} is no symbol: expected letters, digits and ^ . = - _, such as AAPL, BRK-B "
            "or ^VIX"
        )
    return symbol


def _as_field(symbol: str) -> str:
    try:
        return check_symbol(symbol)
    except ConfigError as error:
        raise ValueError(str(error)) from None


Symbol = Annotated[str, AfterValidator(_as_field)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]  # of files, models and flows


class Section(BaseModel):
    """Frozen, strict about keys; numbers given as strings are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
