"""Handling: what a worker does with each message, and with what feed and broker told meanwhile.

Owns the meaning of a message; called by the worker's main loop alone, so nothing happens inside a
bar. Which message comes when is the queue's matter.
"""

from collections.abc import Callable, Iterable, Sequence

from core.errors import RatchetError
from core.settings import Params
from serving.account import Account
from serving.brokers.port import News, RemoteBroker
from serving.floor import Floor
from serving.following import AliasMoved, AliasRefused
from serving.history import FeedBar
from serving.messages import BarsArrived, Message, Pause, Reload
from serving.noting import Notes
from serving.reloading import found_settings, live_by
from serving.session import note_alias
from serving.steps import Steps
from serving.undisturbed import undisturbed


class Handler:
    """Acts on messages, in one session."""

    def __init__(
        self,
        floor: Floor,
        notes: Notes,
        steps: Steps,
        account: Account,
        broker: RemoteBroker | None,
        params: Params,
        settings: Callable[[], Params] | None,
    ) -> None:
        """``settings`` reads params.yaml again; None: there is no such file."""
        self._floor = floor
        self._notes = notes
        self._steps = steps
        self._account = account
        self._broker = broker
        self._params = params
        self._settings = settings

    def hear(self) -> None:
        """Take what feed and broker told since the last time, and mind the orders."""
        self._take_news()
        self._mind(self._floor.seats)

    def _take_news(self) -> None:
        floor = self._floor
        news = self._broker.news() if self._broker else News()
        for kind, detail in (*floor.feed.events(), *news.events):
            self._notes.account(kind, detail)
        floor.desk.ticks(floor.feed.ticks())
        for seat in floor.seats.values() if self._broker else ():
            seat.sleeve.hear(news.executions)

    def _mind(self, agents: Iterable[str]) -> None:
        for agent in agents if self._broker else ():
            self._floor.seats[agent].sleeve.mind()

    def handle(self, message: Message) -> None:
        """Do what a message asks for; those that end the session are the loop's own."""
        if not isinstance(message, BarsArrived) or not message.bars:
            self.hear()
        if isinstance(message, BarsArrived):
            self._live(message.bars)
        elif isinstance(message, AliasMoved):
            self._swap(message)
        elif isinstance(message, AliasRefused):
            detail = f"version {message.published.version}: {message.reason}"
            self._notes.agent(message.agent, "alias refused", detail)
        elif isinstance(message, Pause):
            self._floor.seats[message.agent].sleeve.paused = message.on
            self._notes.agent(message.agent, "paused" if message.on else "resumed", message.by)
        elif isinstance(message, Reload):
            self._reload(message.by)

    def _live(self, bars: Sequence[FeedBar]) -> None:
        """Live through a step of the feed: a decision waits for no order but its own.

        Sleeves that close mind their orders then, those that do not, after them.
        """
        self._take_news()
        self._floor.desk.bars(bars)
        with undisturbed():
            closed = self._steps.live(bars)
        self._mind(self._floor.seats.keys() - closed)
        self._floor.ledger.tidy()
        self._steps.prepare()

    def _swap(self, moved: AliasMoved) -> None:
        """Let another model version take over the sleeve; its books stay."""
        floor, sleeve = self._floor, self._floor.seats[moved.agent].sleeve
        try:
            sleeve.trader = floor.desk.trader(
                moved.agent,
                moved.published.version,
                moved.bundle,
                sleeve.signal,
                sleeve.traded,
                floor.feed.vix,
            )
        except RatchetError as error:
            detail = f"version {moved.published.version}: {error}"
            self._notes.agent(moved.agent, "alias refused", detail)
            return
        newest = sleeve.traded.newest
        note_alias(floor.ledger, floor.session, moved.agent, moved.published, moved.bundle, newest)
        floor.log.info(
            "alias moved", extra={"agent": moved.agent, "version": moved.published.version}
        )

    def _reload(self, by: str) -> None:
        """Read the settings again, and live by what may change in flight."""
        found = found_settings(self._params, self._settings, self._notes)
        if found is not None:
            self._params = found.params
            live_by(found, by, self._floor, self._account)
