"""The caretaker: what becomes of orders and shares when the gateway that minded them is gone.

Owns the order of things then: books replayed from the ledger, the broker asked under the gateway's
own client id, every agent stopped by its policy, the answers waited for. Sleeves and dispatch do
the work, as they do for the kill switch; there is no second way to order. Decides nothing, loads no
model, and touches only what the ledger owns. Called by whoever holds lock and lease.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from core.accounts import State, open_accounts
from core.bars import BAR_COLUMNS, Bar
from core.errors import BrokerUnavailable, ExecutionError
from core.settings import Params
from registry.bundle import Bundle
from serving import switch
from serving.agent import Answer
from serving.alerts import KILLED
from serving.books import replay_books
from serving.brokers.port import Broker, Execution, News, RemoteBroker, remote
from serving.history import History, Instrument
from serving.ledger import Ledger, rows
from serving.rulebook import rulebook
from serving.session import account_of, left_over, rules_of
from serving.sleeve import Sleeve

LOOK_SECONDS = 0.05  # between two looks at what the broker says
ANEW_SECONDS = 1.0  # shares are left and no order for them: so long before another is sent


@dataclass(frozen=True, slots=True)
class Nobody:
    """Stands in a sleeve for its trader: there is nothing to decide."""

    name: str
    version: str

    @property
    def bundle(self) -> Bundle:
        raise ExecutionError(f"{self.name}: a caretaker has no model")

    def see(self) -> None:
        """Nothing to look at."""

    def decide(self, state: State, bar: Bar) -> Answer:
        raise ExecutionError(f"{self.name}: a caretaker decides nothing")


class Caretaker:
    """Brings the orders of the newest session to rest, agent by agent."""

    def __init__(
        self,
        ledger: Ledger,
        broker: Broker,
        params: Params,
        press: switch.Press | None,
        beat: Callable[[], None],
    ) -> None:
        """``beat`` says again and again that we live; it raises ``Fenced`` where we may not go on.

        ``press``: the kill switch, where it is on; its policy comes before an agent's own.
        """
        self._ledger, self._broker, self._params = ledger, broker, params
        self._remote: RemoteBroker | None = remote(broker)
        self._press = press
        self._beat = beat
        self._session = ledger.newest_session() or 0
        self._up = False  # the broker has answered
        self._executions: list[Execution] = []  # heard before anybody could take them

    def run(self, why: str, seconds: float) -> str:
        """Return what was done, in words.

        Raises ``BrokerUnavailable`` where the fate of an order is not known after ``seconds``.
        """
        sleeves = self._sleeves()
        if not sleeves:
            return "no agent has traded in this session"
        deadline = time.monotonic() + seconds
        try:
            if self._remote:
                self._remote.abandon(left_over(self._ledger, self._session))
                self._remote.begin(account_of(self._ledger, self._session))
                self._wait(lambda: self._up, deadline, "a link to the broker")
            done = [self._stop(sleeve, why) for sleeve in sleeves]
            self._bring_to_rest(sleeves, why, deadline)
            if self._press:
                self._event(KILLED, self._press.words)
        finally:
            if self._remote:
                self._remote.close()
        return "; ".join(done)

    # -- inside

    def _sleeves(self) -> list[Sleeve]:
        """Return the sleeves as their last recorded bars left them."""
        books = {row.agent: row for row in self._ledger.rows(rows.Equity, session=self._session)}
        found = []
        for agent, newest in books.items():
            past = rulebook(self._ledger, self._session, agent)
            rules = past.newest if past else rules_of(self._params, agent)
            opening = open_accounts(1, 1, self._params.account.cash)
            then = replay_books(
                self._ledger, self._session, agent, opening, past or rules, self._broker
            )
            alias = self._ledger.last(rows.AliasChange, session=self._session, agent=agent)
            trader = Nobody(agent, alias.model_version if alias else "")
            history = History(
                Instrument("ledger", newest.symbol, "1d"), pd.DataFrame(columns=list(BAR_COLUMNS))
            )
            sleeve = Sleeve(
                self._session, trader, then.state, history, history, rules, self._broker,
                self._ledger,
            )  # fmt: skip
            if then.time is not None:
                sleeve.recover(then.time)
            found.append(sleeve)
        return found

    def _policy(self, agent: str) -> switch.Policy:
        if self._press and self._press.policy:
            return self._press.policy
        entry = self._params.agents.get(agent)
        return entry.when_stopped if entry else "protect"

    def _stop(self, sleeve: Sleeve, why: str) -> str:
        policy = self._policy(sleeve.name)
        sleeve.stop(policy, why)
        self._event("stopped", f"by the watchdog, policy {policy}: {why}", sleeve.name)
        return f"{sleeve.name}: {policy}"

    def _bring_to_rest(self, sleeves: Sequence[Sleeve], why: str, deadline: float) -> None:
        """Wait until no order is in doubt, and where shares are to go, an order for them works."""
        anew = dict.fromkeys((sleeve.name for sleeve in sleeves), time.monotonic())
        self._hear(sleeves)
        while waiting := [one for one in sleeves if not (one.rests and self._is_sold(one))]:
            self._pause(deadline, f"the orders of {', '.join(one.name for one in waiting)}")
            self._hear(sleeves)
            now = time.monotonic()
            for one in waiting:
                if not one.rests or self._is_sold(one):
                    anew[one.name] = now
                elif now - anew[one.name] > ANEW_SECONDS:
                    one.stop("flatten", f"{why}; {one.held:+,.0f} shares were left")
                    anew[one.name] = now

    def _is_sold(self, sleeve: Sleeve) -> bool:
        if sleeve.stopped != "flatten" or self._remote is None:
            return True
        return not sleeve.held or self._sells(sleeve)

    def _sells(self, sleeve: Sleeve) -> bool:
        """Say whether an order works that leaves nothing: the market may be closed."""
        working = {one.order_ref: one.remaining for one in self._broker.open_orders()}
        orders = self._ledger.rows(rows.Order, session=self._session, agent=sleeve.name)
        entries = [one.order_ref for one in orders if one.leg.partition(".")[0] == "entry"]
        return sum(working.get(ref, 0.0) for ref in entries) == -sleeve.held

    def _wait(self, condition: Callable[[], bool], deadline: float, what: str) -> None:
        self._hear([])
        while not condition():
            self._pause(deadline, what)
            self._hear([])

    def _pause(self, deadline: float, what: str) -> None:
        self._beat()
        if time.monotonic() > deadline:
            raise BrokerUnavailable(
                f"{what}: not there in time; `ratchet ledger events` says why. The orders are as "
                "the gateway left them: look into TWS"
            )
        time.sleep(LOOK_SECONDS)

    def _hear(self, sleeves: Sequence[Sleeve]) -> None:
        """Take what the broker told, and let some sleeves mind their orders."""
        news = self._remote.news() if self._remote else News()
        for kind, detail in news.events:
            self._event(kind, detail)
            self._up = self._up or kind == "link up"
        self._executions += news.executions
        for sleeve in sleeves:
            sleeve.hear(self._executions)
            sleeve.mind()
        if sleeves:
            self._executions.clear()

    def _event(self, kind: str, detail: str, agent: str = "") -> None:
        of: dict[str, Any] = {"session": self._session, "agent": agent, "bar_time": None}
        with self._ledger.transaction():
            self._ledger.add(rows.RiskEvent(**of, kind=kind, detail=detail))
