"""What shadows came to: read from the ledger, said in words, drawn in a picture.

Owns the reading of recorded comparisons. Runs nothing and promotes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from core.home import Home
from serving.ledger import LedgerReader
from serving.ledger.shadow_rows import ShadowBar, ShadowBegun, ShadowEnd
from serving.ring import command
from sources.files import write_whole
from training.shadow_picture import Shown, draw


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison, as the ledger has it."""

    session: int
    agent: str
    production: str  # version
    challenger: str
    place: int  # among the comparisons with this Production
    begun_after: datetime | None
    newest: datetime | None  # bar
    bars: int
    equity: float  # net value of the challenger's simulated book, account currency
    production_equity: float
    evidence: float  # wealth staked on the challenger
    needed: float  # of it, to be promoted
    against: float
    needed_against: float
    verdict: str  # continue, promote, drop, or over: Production or Challenger changed
    reason: str
    to_promote: str  # the command; empty: there is nothing to promote

    def __str__(self) -> str:
        said = self.verdict + (f" ({self.reason})" if self.reason else "")
        return (
            f"version {self.challenger} beside Production {self.production}, session "
            f"{self.session}, {self.bars} bars: book {self.equity:,.2f}, Production's "
            f"{self.production_equity:,.2f}; wealth {self.evidence:.3g} of {self.needed:.4g}, "
            f"against it {self.against:.3g} of {self.needed_against:.4g}: {said}"
        )


def compared(home: Home, agent: str) -> list[Compared]:
    """Return every comparison of an agent, oldest first; none where nothing was traded yet."""
    found = _read(home, agent)
    with_newest = max((begun.session for begun, _, _ in found), default=0)
    return [_compared(begun, bars, end, with_newest) for begun, bars, end in found]


def picture(home: Home, agent: str) -> Path | None:
    """Draw the comparisons that run, or else the newest; return the SVG's path, or None."""
    found = [one for one in _read(home, agent) if len(one[1]) > 1]
    newest = max((one[0].session for one in found), default=0)
    running = [one for one in found if one[2] is None and one[0].session == newest]
    chosen = running or found[-1:]
    if not chosen:
        return None
    path = home.reports / agent / "shadow.svg"
    write_whole(path, draw([_shown(begun, bars) for begun, bars, _ in chosen]))
    return path


Read = tuple[ShadowBegun, Sequence[ShadowBar], ShadowEnd | None]


def _read(home: Home, agent: str) -> list[Read]:
    if not home.ledger.exists():
        return []
    with LedgerReader(home.ledger) as ledger:
        begun = ledger.rows(ShadowBegun, agent=agent)
        bars = ledger.rows(ShadowBar, agent=agent)
        ends = {_key(end): end for end in ledger.rows(ShadowEnd, agent=agent)}
    by_key: dict[tuple[int, str, int], list[ShadowBar]] = {}
    for bar in bars:
        by_key.setdefault(_key(bar), []).append(bar)
    return [(one, by_key.get(_key(one), []), ends.get(_key(one))) for one in begun]


def _key(row: ShadowBegun | ShadowBar | ShadowEnd) -> tuple[int, str, int]:
    return row.session, row.production_version, row.place


def _compared(
    begun: ShadowBegun, bars: Sequence[ShadowBar], end: ShadowEnd | None, newest: int
) -> Compared:
    last = bars[-1] if bars else None
    verdict, reason = (end.verdict, end.reason) if end else ("continue", "")
    if end is None and begun.session < newest:
        verdict, reason = "over", f"session {newest} compares anew"
    return Compared(
        session=begun.session,
        agent=begun.agent,
        production=begun.production_version,
        challenger=begun.model_version,
        place=begun.place,
        begun_after=begun.begun_after,
        newest=last.bar_time if last else None,
        bars=len(bars),
        equity=last.equity if last else 0.0,
        production_equity=last.production_equity if last else 0.0,
        evidence=last.evidence if last else 1.0,
        needed=1.0 / begun.alpha,
        against=last.against if last else 1.0,
        needed_against=1.0 / begun.drop_alpha,
        verdict=verdict,
        reason=reason,
        to_promote=command(end) if end and end.verdict == "promote" else "",
    )


def _shown(begun: ShadowBegun, bars: Sequence[ShadowBar]) -> Shown:
    def column(name: str) -> np.ndarray:
        return np.array([getattr(bar, name) for bar in bars])

    return Shown(
        title=f"{begun.agent}: version {begun.model_version} beside {begun.production_version}",
        time=np.array([bar.bar_time.replace(tzinfo=None) for bar in bars], "datetime64[ns]"),
        equity=column("equity"),
        production_equity=column("production_equity"),
        evidence=column("evidence"),
        against=column("against"),
        needed=1.0 / begun.alpha,
        needed_against=1.0 / begun.drop_alpha,
    )
