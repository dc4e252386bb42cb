"""The rule book: by which rules a sleeve lived at each of its bars.

Owns what the ledger knows of rules and how they changed, so that a restart and a replay go by the
rules of the time. Changes no rule itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.rules import Rules
from serving.ledger import Ledger, rows
from serving.ledger.reader import Reading


@dataclass(frozen=True, slots=True)
class RuleBook:
    """Rules by the bar they began after, oldest first; the first hold from the beginning."""

    entries: Sequence[tuple[datetime | None, Rules]]

    @classmethod
    def only(cls, rules: Rules) -> "RuleBook":
        """Return a book of one entry: rules that never changed."""
        return cls([(None, rules)])

    @property
    def newest(self) -> Rules:
        return self.entries[-1][1]

    def at(self, bar_time: datetime) -> Rules:
        """Return the rules a bar was lived through by."""
        valid = self.entries[0][1]
        for after, rules in self.entries:
            if after is None or after < bar_time:
                valid = rules
        return valid


def rulebook(ledger: Reading, session: int, agent: str) -> RuleBook | None:
    """Return the rules a sleeve lived by; None where the ledger knows none."""
    known = ledger.rows(rows.RuleChange, session=session, agent=agent)
    if not known:
        return None
    return RuleBook([(row.bar_time, Rules.from_json(row.rules)) for row in known])


def changes_of(old: Rules, new: Rules) -> dict[str, list[Any]]:
    """Return every number that differs, old and new."""
    before, after = old.to_json(), new.to_json()
    return {name: [before[name], after[name]] for name in before if before[name] != after[name]}


def note_rules(
    ledger: Ledger, session: int, agent: str, rules: Rules, bar_time: datetime | None
) -> dict[str, list[Any]]:
    """Record rules that are new to a sleeve, inside the caller's transaction.

    ``bar_time`` is the newest bar it has lived through. Returns what changed.
    """
    known = ledger.last(rows.RuleChange, session=session, agent=agent)
    changes = changes_of(Rules.from_json(known.rules), rules) if known else {}
    if known and not changes:
        return {}
    ledger.add(
        rows.RuleChange(
            session=session,
            agent=agent,
            bar_time=bar_time if known else None,
            rules=rules.to_json(),
            changes=changes,
        )
    )
    return changes


def in_words(changes: dict[str, list[Any]]) -> str:
    """Return changes as text: ``max_weight 1.0 -> 0.8``."""
    return ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changes.items())
