"""Sessions: a book of accounts, opened once, resumed after every restart until its feed ends.

Owns which session a worker continues, and how a sleeve is built for it: fresh, or exactly as its
last recorded bar left it. Knows nothing of threads.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.accounts import open_accounts
from core.errors import ConfigError, NotAllowed, ServiceUnavailable, UnknownVersion
from core.risk import Rules
from core.settings import Params
from registry.bundle import Bundle
from serving.books import replay_books
from serving.brokers.port import WORKING, Broker
from serving.deciding import Desk
from serving.feeds import Feed
from serving.following import ALIAS, Published, Shelf
from serving.history import History, Instrument
from serving.ledger import Ledger, rows
from serving.pairing import Pairing
from serving.rulebook import in_words, note_rules, rulebook
from serving.sleeve import Sleeve
from serving.timer import heard_again

PAPER = "paper"


def require_paper(trading_mode: str | None) -> None:
    """Raise ``NotAllowed`` for anything but paper trading (the variable TRADING_MODE)."""
    if trading_mode in (None, "", PAPER):
        return
    if trading_mode == "live":
        raise NotAllowed(
            "TRADING_MODE=live: the paper broker has no real money to trade; name the one that has "
            "with --broker ibkr, or unset TRADING_MODE"
        )
    raise ConfigError(f"TRADING_MODE={trading_mode}: expected `paper`")


def instruments_of(params: Params, agent: str) -> tuple[Instrument, Instrument]:
    """Return what an agent trades and what it looks at."""
    entry = params.agent(agent)
    return (
        Instrument(entry.source, entry.symbol, entry.interval, entry.decide_seconds),
        Instrument(entry.source, entry.signal_symbol, entry.interval, entry.decide_seconds),
    )


def open_session(ledger: Ledger, broker: str, feed: str, fresh: bool, mode: str = PAPER) -> int:
    """Return the newest session if it can be continued, else a new one; note the start."""
    last = ledger.last(rows.Session)
    session = last.session if last else 0
    closed = last is None or any(
        event.kind == "closed" for event in ledger.rows(rows.SessionEvent, session=session)
    )
    same = last is not None and (last.broker, last.feed, last.mode) == (broker, feed, mode)
    with ledger.transaction():
        if fresh or closed or not same:
            session += 1
            ledger.add(rows.Session(session=session, broker=broker, feed=feed, mode=mode))
        ledger.add(session_event(session, "started"))
    return session


def account_of(ledger: Ledger, session: int) -> str:
    """Return how the session's account was named when it was traded first; empty: not yet."""
    bound = ledger.last(rows.RiskEvent, session=session, kind="account")
    return bound.detail if bound else ""


def left_over(ledger: Ledger, session: int) -> dict[str, str]:
    """Return the orders that earlier sessions may have left at a broker: order_ref by its name."""
    statuses = ledger.rows(rows.OrderStatus)
    working = {
        order.order_ref
        for order in ledger.rows(rows.Order)
        if order.session < session and order.status in WORKING
    }
    return {one.broker_id: one.order_ref for one in statuses
            if one.order_ref in working and one.broker_id}  # fmt: skip


def session_event(session: int, kind: str, detail: str = "") -> rows.SessionEvent:
    return rows.SessionEvent(session=session, kind=kind, pid=os.getpid(), detail=detail)


@dataclass(frozen=True, slots=True)
class Model:
    """What an agent decides by: a published version, verified and loaded."""

    published: Published
    bundle: Bundle


def production_models(
    ledger: Ledger, shelf: Shelf, agents: Sequence[str], logger: logging.Logger
) -> dict[str, Model]:
    """Return the Production models of ``agents``; one that has none yet is left out.

    Asked for before a session is opened: a worker that cannot trade leaves no trace in the books.
    Raises ``UnknownVersion`` when nobody is left, ``BadBundle`` where a bundle is damaged.
    """
    found = {}
    for agent in agents:
        try:
            published = _published(ledger, shelf, agent)
            found[agent] = Model(published, shelf.load(agent, published))
        except UnknownVersion as error:
            logger.warning("agent left out", extra={"agent": agent, "reason": str(error)})
    if not found:
        commands = " or ".join(f"`ratchet retrain {agent}`" for agent in agents)
        raise UnknownVersion(f"{', '.join(agents)}: no version is {ALIAS}; run {commands}")
    return found


def _published(ledger: Ledger, shelf: Shelf, agent: str) -> Published:
    """Ask the registry; while it is away, go by what the ledger saw last."""
    try:
        return shelf.production(agent)
    except ServiceUnavailable:
        known = ledger.last(rows.AliasChange, agent=agent, alias=ALIAS)
        if known is None:
            raise
        return Published(known.model_version, known.bundle_sha256)


@dataclass(frozen=True, slots=True)
class Seat:
    """A sleeve in its place: what it waits for, and since when."""

    sleeve: Sleeve
    pairing: Pairing
    published: Published
    since: datetime  # newest bar it has lived through


def furthest_behind(seats: Iterable[Seat]) -> dict[Instrument, datetime]:
    """Return from where each instrument must be delivered: the agent furthest behind decides."""
    after: dict[Instrument, datetime] = {}
    for seat in seats:
        for instrument in seat.pairing.instruments:
            after[instrument] = min(after.get(instrument, seat.since), seat.since)
    return after


class Opening:
    """Builds the sleeves of one session."""

    def __init__(
        self,
        params: Params,
        ledger: Ledger,
        session: int,
        feed: Feed,
        broker: Broker,
        desk: Desk,
    ) -> None:
        self._params = params
        self._ledger = ledger
        self._session = session
        self._feed = feed
        self._broker = broker
        self._desk = desk

    def seat(self, agent: str, model: Model) -> Seat:
        """Return an agent's sleeve, as its last recorded bar left it or newly opened."""
        published, bundle = model.published, model.bundle
        rules = rules_of(self._params, agent)
        opening = open_accounts(1, 1, self._params.account.cash)
        past = rulebook(self._ledger, self._session, agent) or rules
        books = replay_books(self._ledger, self._session, agent, opening, past, self._broker)
        self._note_rules(agent, rules, books.time)
        traded, signal = instruments_of(self._params, agent)
        pairing = Pairing(traded, signal)
        since = books.time or self._feed.begin(pairing.instruments)
        histories = {one: self._history(agent, one, since) for one in pairing.instruments}
        trader = self._desk.trader(
            agent, published.version, bundle, histories[signal], histories[traded], self._feed.vix
        )
        sleeve = Sleeve(
            self._session,
            trader,
            books.state,
            histories[traded],
            histories[signal],
            rules,
            self._broker,
            self._ledger,
        )
        sleeve.paused = self._is_paused(agent)
        if books.time is not None:
            sleeve.recover(books.time)
        note_alias(self._ledger, self._session, agent, published, bundle, books.time)
        return Seat(sleeve, pairing, published, since)

    def _history(self, agent: str, one: Instrument, since: datetime) -> History:
        """Return what is known up to a bar; with a timer, as it was heard."""
        of: dict[str, Any] = {"session": self._session, "agent": agent, "symbol": one.symbol}
        heard = self._ledger.rows(rows.BarSeen, **of) if one.decide else []
        if not heard:
            return History(one, self._feed.history(one, since))
        return heard_again(one, self._feed.history(one, since), heard)

    def _note_rules(self, agent: str, rules: Rules, bar_time: datetime | None) -> None:
        """Record the rules from now on, and that they are others than before the restart."""
        with self._ledger.transaction():
            changes = note_rules(self._ledger, self._session, agent, rules, bar_time)
            if changes:
                self._ledger.add(
                    rows.RiskEvent(
                        session=self._session,
                        agent=agent,
                        bar_time=bar_time,
                        kind="settings",
                        detail=f"since the restart: {in_words(changes)}",
                    )
                )

    def _is_paused(self, agent: str) -> bool:
        events = self._ledger.rows(rows.RiskEvent, session=self._session, agent=agent)
        kinds = [event.kind for event in events if event.kind in ("paused", "resumed")]
        return bool(kinds) and kinds[-1] == "paused"


def rules_of(params: Params, agent: str) -> Rules:
    """Return the rules an agent's sleeve lives by."""
    return Rules.of(params.account, params.costs, params.risk_for(agent))


def note_alias(
    ledger: Ledger,
    session: int,
    agent: str,
    published: Published,
    bundle: Bundle,
    bar_time: datetime | None,
) -> bool:
    """Record model and alias if they are new to the session; return whether they are."""
    of = {"session": session, "agent": agent}
    last = ledger.last(rows.AliasChange, **of, alias=ALIAS)
    if last and (last.model_version, last.bundle_sha256) == (published.version, bundle.sha256):
        return False
    from features.observation import observation_columns

    model = rows.Model(
        session=session,
        agent=agent,
        model_version=published.version,
        bundle_sha256=bundle.sha256,
        spec_sha256=bundle.spec.sha256,
        observation_columns=observation_columns(bundle.spec),
        card=bundle.card.to_json(),
    )
    change = rows.AliasChange(
        session=session,
        agent=agent,
        alias=ALIAS,
        model_version=published.version,
        bundle_sha256=bundle.sha256,
        previous_version=last.model_version if last else "",
        bar_time=bar_time,
    )
    with ledger.transaction():
        ledger.add_new(model)
        ledger.add(change)
    return True
