"""Boundaries: where a process can die between ledger and broker, and the dying itself.

Owns the names of the places, their count in one process, and the kill at the n-th crossing. The
product knows none of it: the classes here stand where the worker's own would, and add nothing but
the crossing. Knows no market and judges nothing.
"""

import os
import signal
import threading
from dataclasses import dataclass, field
from typing import Any

from ib_async.client import Client

import serving.worker
from serving.brokers.ibkr import IbkrBroker
from serving.ledger import Ledger, rows

RECOVERING = "recovering: "  # before names of crossings between a restart and its first bar
PLACE, CANCEL = "3", "4"  # kinds of message of the socket protocol
WORDS = {  # what a transaction is about, by a table it writes; the first that fits
    "intents": "a close with an order",
    "equity": "a close",
    "levels": "stop and target",
    "executions": "what was executed",
    "orders": "the word on an order",
    "sessions": "a new session",
    "alias_changes": "the model",
    "snapshots": "the end",
    "session_events": "a start",
    "risk_events": "an event",
}


@dataclass
class Boundaries:
    """Counts crossings of one process; both of its threads come through here."""

    log: int = -1  # file descriptor that every crossing is written to
    kill: tuple[str, int] | None = None  # boundary, and which of its crossings is the last
    phase: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)

    def cross(self, boundary: str) -> None:
        name = self.phase + boundary
        with self.lock:
            self.counts[name] = count = self.counts.get(name, 0) + 1
            if self.log >= 0:
                os.write(self.log, f"{name}\n".encode())
            if self.kill == (name, count):
                os.kill(os.getpid(), signal.SIGKILL)


HERE = Boundaries()  # of this process


class CrossingLedger(Ledger):
    """Crosses a boundary before and after every commit, and inside the greater ones."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        HERE.cross("before the ledger is opened")
        super().__init__(*arguments, **keywords)
        self._tables: list[str] = []
        HERE.cross("after the ledger is opened")

    def _execute(self, sql: str, values: tuple[Any, ...] = ()) -> Any:
        words = sql.split(maxsplit=3)
        if words[0] == "BEGIN":
            self._tables = []
        elif words[0] == "INSERT":
            self._tables.append(words[2])
            if words[2] in ("equity", "snapshots"):
                HERE.cross(f"inside a transaction, before {words[2]}")
        elif words[0] == "COMMIT" and self._tables:
            return self._commit(sql)
        return super()._execute(sql, values)

    def _commit(self, sql: str) -> Any:
        about = _about(self._tables)
        HERE.cross(f"before the commit of {about}")
        done = super()._execute(sql)
        HERE.cross(f"after the commit of {about}")
        return done


def _about(tables: list[str]) -> str:
    if "levels" in tables:
        return WORDS["levels"]
    if "intents" in tables and "equity" not in tables:
        return "an intent"
    if set(tables) == {"snapshots"}:
        return "a snapshot"
    return next((words for table, words in WORDS.items() if table in tables), "something")


class LateIntents(CrossingLedger):
    """A planted bug: an intent is written when the broker has confirmed its order."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._late: dict[str, rows.Intent] = {}

    def add_new(self, row: rows.Row) -> bool:
        if isinstance(row, rows.Intent):
            self._late[row.order_ref] = row
            return True
        return super().add_new(row)

    def add(self, *added: rows.Row) -> None:
        for row in added:
            if isinstance(row, rows.OrderStatus) and row.order_ref in self._late:
                super().add_new(self._late.pop(row.order_ref))
        super().add(*added)


class CrossingBroker(IbkrBroker):
    """Crosses a boundary before and after everything the worker asks of IBKR or hears from it."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        ask = self._asking.ask

        async def crossing(*arguments: Any, **keywords: Any) -> None:
            HERE.cross("before everything is asked")
            await ask(*arguments, **keywords)
            HERE.cross("after everything is answered")

        self._asking.ask = crossing  # type: ignore[method-assign]

    def place(self, ticket: Any) -> Any:
        report = super().place(ticket)
        HERE.cross("order placed and confirmed, not noted")
        return report

    def cancel(self, order_ref: str) -> Any:
        report = super().cancel(order_ref)
        HERE.cross("cancel confirmed, not noted")
        return report

    def fate(self, ticket: Any) -> Any:
        HERE.cross("before an order's fate is asked")
        report = super().fate(ticket)
        HERE.cross("after an order's fate is known")
        return report

    def settle(self, *arguments: Any) -> Any:
        HERE.cross("before executions are booked")
        settled = super().settle(*arguments)
        HERE.cross("executions booked, not written")
        return settled

    def filled(self, *arguments: Any) -> None:
        HERE.cross("before a fill is taken")
        super().filled(*arguments)
        HERE.cross("after a fill is taken")

    def heard(self, *arguments: Any) -> None:
        HERE.cross("before a word of IBKR is heard")
        super().heard(*arguments)
        HERE.cross("after a word of IBKR is heard")

    async def came_up(self, ib: Any) -> None:
        HERE.cross("connected, nothing asked")
        await super().came_up(ib)
        HERE.cross("connected, everything asked")


class BlindBroker(CrossingBroker):
    """A planted bug: what may have been sent is sent again without asking."""

    def fate(self, ticket: Any) -> Any:
        return None

    def place(self, ticket: Any) -> Any:
        with self._lock:
            self._book.known.discard(ticket.order_ref)
            self._book.open.pop(ticket.order_ref, None)
        return super().place(ticket)


PLANTED = {"": CrossingLedger, "intent after sending": LateIntents, "resend": CrossingLedger}


def install(log: int, kill: tuple[str, int] | None, recovering: bool, planted: str) -> None:
    """Count from now on in this process, which is about to trade."""
    HERE.log, HERE.kill = log, kill
    HERE.phase = RECOVERING if recovering else ""
    serving.worker.Ledger = PLANTED[planted]  # type: ignore[misc]
    send = Client.sendMsg

    def crossing(client: Client, message: str) -> None:
        what = _leaving(message)
        if what:
            HERE.cross(f"before {what} leaves")
        send(client, message)
        if what:
            HERE.cross(f"after {what} left")

    Client.sendMsg = crossing


def _leaving(message: str | None) -> str:
    kind = (message or "").split("\0", 1)[0]
    if kind == CANCEL:
        return "a cancel"
    if kind != PLACE or message is None:
        return ""
    leg = next((leg for leg in ("stop", "target") if f"-{leg}" in message), "entry")
    return {"stop": "a stop", "target": "a target", "entry": "an order"}[leg]
