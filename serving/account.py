"""The account: what the sleeves that decide together may order together.

Owns the step between verdict and ledger where limits of the whole account cut what a sleeve wants.
The rules are ``core.portfolio``'s; everything of one step becomes
durable at once, so that a crash leaves all of it or nothing. Knows no threads and no feeds.
"""

from collections.abc import Mapping, Set

from core.portfolio import AccountLimits, clips
from core.risk import Reason
from serving.closing import Close, Cut
from serving.ledger import Ledger
from serving.sleeve import Sleeve


class Account:
    """All sleeves of a session, side by side."""

    def __init__(self, ledger: Ledger, limits: AccountLimits) -> None:
        self.limits = limits
        self._ledger = ledger

    def conclude(
        self,
        sleeves: Mapping[str, Sleeve],
        weighed: Mapping[str, Close],
        snapshots: Set[str] = frozenset(),
    ) -> dict[str, Close]:
        """Cut what must be cut of the closes of one step, record all, send all.

        ``weighed`` by agent; ``snapshots`` names those whose state is to be kept, once their orders
        have left: without it a restart lives through more bars, to the same state.
        """
        closes = dict(weighed)
        if not self.limits.off:
            claims = [sleeve.claim(closes.get(name)) for name, sleeve in sleeves.items()]
            for clip in clips(claims, self.limits):
                cut = Cut(clip.wanted, clip.allowed, Reason.ACCOUNT_CLIP, clip.words)
                closes[clip.agent] = sleeves[clip.agent].clipped(closes[clip.agent], cut)
        with self._ledger.telling_later():
            with self._ledger.transaction():
                for agent, close in closes.items():
                    sleeves[agent].write(close)
            for agent, close in closes.items():
                sleeves[agent].send(close)
        if snapshots:
            with self._ledger.transaction():
                for agent in snapshots:
                    sleeves[agent].keep_snapshot()
        return closes
