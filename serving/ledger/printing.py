"""Ledger rows for people (a table) and for programs (JSON).

Owns which columns a person sees. Prints nothing itself.
"""

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from serving.ledger.reader import Lineage
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
    "sessions": ("session", "recorded_at", "broker", "mode", "feed"),
    "events": ("recorded_at", "agent", "bar_time", "kind", "detail"),
}  # fmt: skip
_DECIMALS = {"weight": 4, "score": 4, "confidence": 3, "asked": 4, "allowed": 4, "drawdown": 4}


def as_json(rows: Sequence[Row]) -> str:
    """Return rows as a JSON array; NaN becomes null, the observation is named by its hash."""
    return json.dumps([plain(row) for row in rows], indent=1)


def as_table(rows: Sequence[Row]) -> str:
    """Return rows of one kind as text in columns; numbers to the right."""
    if not rows:
        return "nothing recorded in this session; `ratchet ledger sessions` lists them"
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


def lineage_as_json(found: Lineage) -> str:
    """Return everything behind an order as one JSON object."""
    content = {name: getattr(found, name) for name in Lineage.__slots__}
    content |= {name: plain(content[name]) for name in ("order", "decision", "verdict")}
    return json.dumps(content | {"fills": [plain(fill) for fill in found.fills]}, indent=1)


def lineage_as_text(found: Lineage) -> str:
    """Return, line by line, what is behind an order: from the order down to the commit."""
    order, decision, verdict = found.order, found.decision, found.verdict
    fills = "; ".join(
        f"{fill.shares:+,.0f} at {fill.price:.4f} on {fill.bar_time:%Y-%m-%d %H:%M}, commission "
        f"{fill.commission:.2f}"
        for fill in found.fills
    )
    largest = sorted(found.features.items(), key=lambda item: -abs(item[1]))[:8]
    risk = ", ".join(verdict.words) or "nothing to say"
    lines = {
        "order": f"{order.order_ref}: {order.shares:+,.0f} {order.symbol}, {order.kind}, "
        f"{order.status}",
        "fills": fills or "none",
        "decision": f"{decision.action} at the close of {decision.bar_time:%Y-%m-%d %H:%M} UTC: "
        f"{decision.rationale['text']}",
        "risk": f"asked {verdict.asked:.4f}, allowed {verdict.allowed:.4f}: {risk}",
        "features": ", ".join(f"{name} {value:+.2f}" for name, value in largest)
        + f", … ({len(found.features)} in all, sha256 {decision.observation_sha256[:12]})",
        "version": f"{order.agent} {found.model_version}, bundle {found.bundle_sha256}",
        "trial": "none" if found.trial is None else f"{found.trial}, seed {found.seed}",
        "dataset": found.dataset_sha256,
        "commit": found.commit,
    }
    return "\n".join(f"{name:<9} {words}" for name, words in lines.items())
