"""Ledger rows for people (a table) and for programs (JSON).

Owns which columns a person sees. Prints nothing itself.
"""

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from serving.ledger.rows import Row, plain

_SHOWN: dict[str, tuple[str, ...]] = {
    "decisions": (
        "bar_time", "agent", "model_version", "action", "weight", "score", "confidence",
        "rationale",
    ),
    "verdicts": ("bar_time", "agent", "symbol", "asked", "allowed", "words"),
    "order_book": (
        "bar_time", "agent", "symbol", "leg", "shares", "status", "filled", "remaining",
        "order_ref",
    ),
    "fills": (
        "bar_time", "agent", "symbol", "leg", "shares", "price", "commission", "order_ref",
    ),
    "equity": (
        "bar_time", "agent", "cash", "shares", "close", "equity", "drawdown", "risk_state",
    ),
    "events": ("recorded_at", "agent", "bar_time", "kind", "detail"),
}  # fmt: skip
_DECIMALS = {"weight": 4, "score": 4, "confidence": 3, "asked": 4, "allowed": 4, "drawdown": 4}


def as_json(rows: Sequence[Row]) -> str:
    """Return rows as a JSON array; NaN becomes null, the observation is named by its hash."""
    return json.dumps([plain(row) for row in rows], indent=1)


def as_table(rows: Sequence[Row]) -> str:
    """Return rows of one kind as text in columns; numbers to the right."""
    if not rows:
        return "nothing recorded"
    names = _SHOWN.get(rows[0].TABLE) or tuple(plain(rows[0]))
    cells = [[_cell(name, getattr(row, name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    numeric = [isinstance(getattr(rows[0], name), int | float) for name in names]

    def line(texts: Sequence[str]) -> str:
        parts = (
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(texts, widths, numeric, strict=True)
        )
        return "  ".join(parts).rstrip()

    rule = ["-" * width for width in widths]
    return "\n".join([line(names), line(rule), *(line(texts) for texts in cells)])


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        midnight = (value.hour, value.minute, value.second, value.microsecond) == (0, 0, 0, 0)
        return f"{value:%Y-%m-%d}" if midnight else f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        if math.isnan(value):
            return "hold" if name in ("weight", "asked", "allowed") else ""
        return f"{value:,.0f}" if name in ("shares", "filled", "remaining") else (
            f"{value:,.{_DECIMALS.get(name, 2)}f}"
        )  # fmt: skip
    if isinstance(value, dict):
        return str(value.get("text", ""))
    return "; ".join(value) if isinstance(value, tuple) else str(value)
