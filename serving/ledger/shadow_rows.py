"""What the ledger says of shadows: challengers beside Production, each with simulated books.

Owns names, types and units of these rows; how rows become SQL is ``serving/ledger/rows.py``'s.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from serving.ledger.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus(Row):
    """Who is compared with whom."""

    agent: str
    production_version: str
    model_version: str  # of the challenger


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowBegun(Versus):
    """A comparison began: both books open as Production's sleeve stood after ``begun_after``."""

    TABLE: ClassVar[str] = "shadows"

    production_sha256: str  # of its bundle
    bundle_sha256: str
    begun_after: datetime | None  # bar; None: before the first of the session
    state: str  # JSON of core.accounts.state_to_json, of both books
    place: int  # among all comparisons with this Production, of any session; from 1 up
    alpha: float  # how often a challenger that is no better may be promoted
    drop_alpha: float
    longest_bars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowBar(Versus):
    """One bar of both books of a comparison, and where its test stands."""

    TABLE: ClassVar[str] = "shadow_bars"

    place: int
    bar_time: datetime
    asked: float  # target weight of the challenger; NaN: hold
    action: str  # buy, sell or hold: what its book orders for the next open
    weight: float  # value of its shares / equity at the close
    atr: float  # price units, as the challenger's features have it; NaN unknown
    volatility: float  # annualised, likewise
    stale: int  # 1: the bar was too old to order on
    equity: float  # net value of the challenger's book, account currency
    log_return: float
    production_asked: float
    production_weight: float
    production_equity: float
    production_log_return: float
    deviation: float  # of the market's log return in this bar, as known before it; NaN unknown
    evidence: float  # wealth staked on the challenger
    against: float  # wealth staked on Production


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowEnd(Versus):
    """A comparison ended."""

    TABLE: ClassVar[str] = "shadow_ends"

    production_sha256: str
    bundle_sha256: str
    place: int
    bar_time: datetime | None  # its newest
    verdict: str  # promote, drop, or over: Production changed
    bars: int
    evidence: float
    against: float
    reason: str
