"""A verdict: every test the gate made, how each came out, and what follows.

Owns the record that goes into card, ledger and report. Decides nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from core.errors import RegistryError

Verdict = Literal["promote", "refuse", "insufficient evidence"]

# Titles of the report's figures, by which a reason says what shows it.
EQUITY, SEEDS, LEARNED = "Equity and drawdown", "Seeds", "Walk-forward"
CHOICE, STRESS, REGIMES = "Choice among trials", "Stress", "Regimes"


@dataclass(frozen=True, slots=True)
class Reason:
    """One test and how it came out."""

    test: str  # as in the module's docstring
    subject: str  # against whom, or of what
    value: float
    threshold: float
    passed: bool
    sentence: str
    figure: str = ""  # of the report that shows it, by its title


@dataclass(frozen=True, slots=True)
class GateReport:
    """The verdict, and every test that led to it."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    bars: int  # of the hold-out
    trials: int
    looks: int

    @property
    def passed(self) -> bool:
        return self.verdict == "promote"

    @property
    def summary(self) -> str:
        """The verdict in one sentence: what failed first, or what was weakest."""
        failed = [reason for reason in self.reasons if not reason.passed]
        if not failed:
            return f"{self.verdict}: passed all {len(self.reasons)} tests"
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return f"{self.verdict}: {failed[0].sentence}{more}"

    @property
    def sha256(self) -> str:
        """Hash of the report, by which a promotion names its evidence."""
        text = json.dumps(self.to_json(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return plain data; ``from_json`` gives back an equal report."""
        return {**asdict(self), "reasons": [asdict(reason) for reason in self.reasons]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Build a report from plain data; raise ``RegistryError`` when it is none."""
        try:
            reasons = tuple(Reason(**reason) for reason in content["reasons"])
            report = cls(**{**content, "reasons": reasons})
        except (KeyError, TypeError) as error:
            raise RegistryError(f"not a gate report ({error})") from error
        if report.verdict not in get_args(Verdict):
            raise RegistryError(f"not a gate report: verdict {report.verdict!r}")
        return report
