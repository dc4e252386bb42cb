"""The whole account: what its sleeves may hold together.

Each agent trades a sleeve of its own; these limits look across them and can only clip: no target
grows, none changes sign, and what is held already is never sold for them. Pure; the order in which
agents are named does not matter, to the last bit. Knows neither orders nor agents' reasons.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core import settings
from core.accounts import State
from core.engine import Submission
from core.risk import Reason, Verdict


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """Limits across sleeves, as fractions of the whole account's equity; ``inf``: no limit."""

    allocation: Mapping[str, float]  # by agent: the most its sleeve may hold; not named: no limit
    max_exposure: float = math.inf  # of all sleeves together, long and short added up
    max_symbol: float = math.inf  # of one symbol in all sleeves, likewise

    @classmethod
    def of(cls, portfolio: settings.Portfolio) -> "AccountLimits":
        """Return the limits a section of params.yaml describes."""
        exposure, symbol = portfolio.max_exposure, portfolio.max_symbol
        return cls(
            dict(portfolio.allocation),
            math.inf if exposure is None else exposure,
            math.inf if symbol is None else symbol,
        )

    @property
    def off(self) -> bool:
        return not self.allocation and math.isinf(self.max_exposure) and math.isinf(self.max_symbol)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one sleeve holds and wants at a close."""

    agent: str
    symbol: str
    price: float  # account currency
    equity: float  # of the sleeve
    held: float  # signed shares
    wanted: float  # signed shares to hold once everything is filled
    decided: bool  # it moves at this close; else what it wants is on its way already

    @property
    def fixed(self) -> float:
        """Shares (no sign) no limit takes away: held and kept, or on their way."""
        if not self.decided:
            return max(abs(self.held), abs(self.wanted))
        return min(abs(self.held), abs(self.wanted)) if self.held * self.wanted > 0.0 else 0.0

    @property
    def grows(self) -> float:
        """Shares (no sign) by which the position would grow: what may be clipped."""
        return abs(self.wanted) - self.fixed if self.decided else 0.0


@dataclass(frozen=True, slots=True)
class Clip:
    """What is left of a claim, and which limit said so."""

    agent: str
    wanted: float  # signed whole shares
    allowed: float  # signed whole shares; NaN: keep what is held and working
    words: str


def clips(claims: Sequence[Claim], limits: AccountLimits) -> tuple[Clip, ...]:
    """Return what the limits leave of the claims they cut.

    One limit after the other, allocation, symbol, account: where what grows does not fit beside
    what is fixed, everything that grows under that limit is scaled by one factor; then shares are
    truncated toward zero.
    """
    equity = math.fsum(claim.equity for claim in claims)
    scale = dict.fromkeys((claim.agent for claim in claims), 1.0)
    words: dict[str, list[str]] = {claim.agent: [] for claim in claims}
    for name, key, most in _limits(limits):
        for member, together in _grouped(claims, key).items():
            factor = _factor(together, scale, most(member) * max(equity, 0.0))
            if factor < 1.0:
                for claim in together:
                    if claim.grows:
                        scale[claim.agent] *= factor
                        words[claim.agent].append(f"{name} {most(member):.0%} of {equity:,.0f}")
    found = (_clip(claim, scale[claim.agent], words[claim.agent]) for claim in claims)
    return tuple(clip for clip in found if clip is not None)


def applied(before: State, submitted: Submission, allowed: float, reason: Reason) -> Submission:
    """Return a submission of one account after a clip: live, after a restart and in a replay alike.

    ``allowed`` is signed whole shares to hold; NaN keeps shares and orders of ``before``, the
    books at the close before the decision.
    """
    state, verdict = submitted
    block = verdict.block.copy()
    keeps = math.isnan(allowed)
    held = before.shares
    pending = before.pending_shares if keeps else allowed - held
    block[:, :, 0] = held + before.pending_shares if keeps else allowed
    block[:, :, 1] = 0.0 if keeps else 1.0
    block[:, :, 3] = float(int(verdict.reasons[0, 0]) | int(reason))
    return Submission(state.but(pending_shares=np.asarray(pending)), Verdict(verdict.asked, block))


def _factor(together: Sequence[Claim], scale: Mapping[str, float], room: float) -> float:
    """Return by what growth is multiplied to fit; sums are exact, so their order is no matter."""
    if math.isinf(room):
        return 1.0
    fixed = math.fsum(claim.fixed * claim.price for claim in together)
    grows = math.fsum(claim.grows * scale[claim.agent] * claim.price for claim in together)
    left = max(room - fixed, 0.0)
    return left / grows if grows > left else 1.0


def _clip(claim: Claim, scale: float, words: Sequence[str]) -> Clip | None:
    if scale >= 1.0 or not claim.grows:
        return None
    shares = claim.fixed + math.floor(claim.grows * scale)
    allowed = math.copysign(shares, claim.wanted) if shares else 0.0
    if allowed == claim.wanted:
        return None
    return Clip(claim.agent, claim.wanted, allowed, "; ".join(words))


Key = Callable[[Claim], str]  # who shares a limit
Most = Callable[[str], float]  # fraction of the account's equity


def _limits(limits: AccountLimits) -> list[tuple[str, Key, Most]]:
    """Return every limit in the order in which they are applied."""
    return [
        ("allocation", lambda claim: claim.agent, lambda who: limits.allocation.get(who, math.inf)),
        ("symbol limit", lambda claim: claim.symbol, lambda _: limits.max_symbol),
        ("exposure limit", lambda _: "", lambda _: limits.max_exposure),
    ]


def _grouped(claims: Sequence[Claim], key: Key) -> dict[str, list[Claim]]:
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(key(claim), []).append(claim)
    return groups
