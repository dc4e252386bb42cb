"""What the ledger says, one class per table or view.

Owns the names, types and units of what is recorded, and how a row becomes SQL values and comes
back. Field names are column names. NaN is written as NULL and read as NaN.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

RowType = TypeVar("RowType", bound="Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of ``TABLE``; ``session`` is one book of accounts, opened once, resumed at will."""

    TABLE: ClassVar[str]

    session: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Row):
    TABLE: ClassVar[str] = "sessions"

    broker: str
    feed: str  # what delivered the bars; a session is resumed with the same feed only
    mode: str  # paper or live


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent(Row):
    TABLE: ClassVar[str] = "session_events"

    kind: str  # started, stopped, closed (nothing more will come)
    pid: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Row):
    """What stands behind a model version: lineage down to dataset and commit."""

    TABLE: ClassVar[str] = "models"

    agent: str
    model_version: str
    bundle_sha256: str
    spec_sha256: str
    observation_columns: tuple[str, ...]
    card: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BarSeen(Row):
    """A completed bar an agent acted on (the traded symbol's, and the signal symbol's)."""

    TABLE: ClassVar[str] = "bars"

    agent: str
    bar_time: datetime
    symbol: str
    interval: str
    open: float
    high: float
    low: float
    close: float
    volume: float
    dividend: float
    split_ratio: float
    atr: float  # price units; NaN unknown, or not the traded symbol
    volatility: float  # annualised; NaN likewise
    # With a decision timer: what happened between two decisions. Without a row, but with a timer:
    # a whole bar that was heard too late to be lived through.
    row_time: datetime | None = None  # of the bar that was unfinished
    decide_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Row):
    """What a policy answered at the close of a bar, and what it had seen."""

    TABLE: ClassVar[str] = "decisions"

    agent: str
    bar_time: datetime
    symbol: str
    model_version: str
    bundle_sha256: str
    observation: bytes  # float32, little-endian
    observation_sha256: str
    action: str  # buy, sell or hold: what was ordered after risk
    weight: float  # target asked for, fraction of the sleeve's equity; NaN: hold
    score: float  # expected weight before any threshold
    confidence: float  # 0 to 1
    rationale: dict[str, Any]  # features, risk, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Row):
    """What risk made of a decision."""

    TABLE: ClassVar[str] = "verdicts"

    agent: str
    bar_time: datetime
    symbol: str
    asked: float
    allowed: float  # NaN: keep the shares
    reasons: int  # bits of core.risk.Reason
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip(Row):
    """What was left of a verdict by something outside its sleeve; a replay applies it again."""

    TABLE: ClassVar[str] = "clips"

    agent: str
    bar_time: datetime
    symbol: str
    wanted: float  # signed whole shares to hold
    allowed: float  # signed whole shares; NaN: keep what is held and working
    reason: int  # a bit of core.risk.Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange(Row):
    """The rules a sleeve lives by from the bar after ``bar_time`` on."""

    TABLE: ClassVar[str] = "rule_changes"

    agent: str
    bar_time: datetime | None  # newest bar lived under the rules before; None: from the first
    rules: dict[str, Any]  # core.rules.Rules.to_json
    changes: dict[str, Any]  # name: [old, new]; empty for the first of a session


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent(Row):
    """An order about to be sent; durable before it leaves."""

    TABLE: ClassVar[str] = "intents"

    order_ref: str  # unique; what the broker is given, and matched by
    agent: str
    bar_time: datetime  # of the decision
    leg: str  # entry, stop or target
    model_version: str
    symbol: str
    shares: float  # signed, whole
    kind: str  # market_on_open, stop, limit


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderStatus(Row):
    """What the broker said about an order at one moment; the newest word counts."""

    TABLE: ClassVar[str] = "orders"

    order_ref: str
    bar_time: datetime
    status: str  # submitted, partial, filled, cancelled
    filled: float  # signed shares so far, in today's shares
    remaining: float  # signed shares
    broker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Row):
    """An intent with the newest word on it (view)."""

    TABLE: ClassVar[str] = "order_book"

    order_ref: str
    agent: str
    bar_time: datetime
    leg: str
    model_version: str
    symbol: str
    shares: float
    kind: str
    status: str  # intended: written, not yet acknowledged
    filled: float
    remaining: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill(Row):
    TABLE: ClassVar[str] = "fills"

    exec_id: str  # unique
    agent: str
    order_ref: str
    bar_time: datetime  # bar in which it traded
    symbol: str
    leg: str
    shares: float  # signed
    price: float  # slippage included
    commission: float  # account currency
    slippage: float  # account currency, already inside the price


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed(Row):
    """What a broker told of a fill, when it told it; a correction is a row of its own."""

    TABLE: ClassVar[str] = "executions"

    exec_id: str  # ends in .01; a correction repeats the rest and ends in .02
    order_ref: str
    agent: str
    symbol: str
    leg: str
    shares: float  # signed
    price: float
    commission: float  # account currency; NaN: not told yet, then a second row has it
    executed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Level(Row):
    """The price of a stop or target that was placed as an order."""

    TABLE: ClassVar[str] = "levels"

    order_ref: str
    price: float  # account currency


@dataclass(frozen=True, slots=True, kw_only=True)
class Equity(Row):
    """The sleeve's books at a close."""

    TABLE: ClassVar[str] = "equity"

    agent: str
    bar_time: datetime
    symbol: str
    cash: float
    shares: float
    close: float
    equity: float
    drawdown: float  # from the rolling peak, fraction
    risk_state: str  # ACTIVE, REDUCING, HALTED


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskEvent(Row):
    TABLE: ClassVar[str] = "risk_events"

    agent: str
    bar_time: datetime | None
    kind: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention(Row):
    """A sleeve was stopped after a close: what had been ordered there was taken back."""

    TABLE: ClassVar[str] = "interventions"

    agent: str
    bar_time: datetime  # of the close it came after
    policy: str  # hold, protect or flatten
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasChange(Row):
    TABLE: ClassVar[str] = "alias_changes"

    agent: str
    alias: str
    model_version: str
    bundle_sha256: str
    previous_version: str  # empty: the first of the session
    bar_time: datetime | None  # last bar decided by the previous version


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Row):
    """State of a sleeve after a bar; a cache, only the newest are kept."""

    TABLE: ClassVar[str] = "snapshots"

    agent: str
    bar_time: datetime
    state: str  # JSON of core.accounts.state_to_json
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Row):
    """Everything out of the ordinary: sessions, aliases, risk (view)."""

    TABLE: ClassVar[str] = "events"

    agent: str
    bar_time: datetime | None
    kind: str
    detail: str
    recorded_at: datetime


def iso(moment: datetime) -> str:
    """Return UTC text that sorts as time does."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


_COLUMNS: dict[type[Row], tuple[str, ...]] = {}  # looked up once for each class


def columns_of(row_type: type[Row]) -> tuple[str, ...]:
    if row_type not in _COLUMNS:
        _COLUMNS[row_type] = tuple(field.name for field in dataclasses.fields(row_type))
    return _COLUMNS[row_type]


def values_of(row: Row) -> tuple[Any, ...]:
    """Return the SQL values of a row, in the order of ``columns_of``."""
    return tuple(_to_sql(getattr(row, name)) for name in columns_of(type(row)))


def rows_of(row_type: type[RowType], found: Iterable[tuple[Any, ...]]) -> list[RowType]:
    """Build rows from SQL values in the order of ``columns_of``."""
    kinds = _kinds(row_type)
    return [
        row_type(**{name: _from_sql(value, kind) for (name, kind), value in pairs})
        for pairs in (zip(kinds, values, strict=True) for values in found)
    ]


def plain(row: Row) -> dict[str, Any]:
    """Return a row as data for JSON: times as text, NaN as None, bytes left out."""
    return {
        name: _json_value(getattr(row, name))
        for name in columns_of(type(row))
        if not isinstance(getattr(row, name), bytes)
    }


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _to_sql(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, tuple | dict):
        return json.dumps(value, sort_keys=True)
    return value


def _kinds(row_type: type[Row]) -> list[tuple[str, type]]:
    hints, kinds = typing.get_type_hints(row_type), []
    for name in columns_of(row_type):
        hint = hints[name]
        if isinstance(hint, types.UnionType):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        kinds.append((name, typing.get_origin(hint) or hint))
    return kinds


def _from_sql(value: Any, kind: type) -> Any:
    if value is None:
        return math.nan if kind is float else None
    if kind is datetime:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    if kind is tuple:
        return tuple(json.loads(value))
    if kind is dict:
        return json.loads(value)
    return value
