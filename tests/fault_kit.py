"""A fault, how it strikes a sleeve that trades at the fake TWS, and what must hold after it.

Owns the invariants: ``survived`` holds ledger and broker against each other at the end. Which
faults there are is ``fault_list``'s.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_tws import FakeTws
from ibkr_kit import FAST, Market, Trading, audit, bars, events, market

from core.errors import BrokerUnavailable, RatchetError
from serving.brokers.ibkr import Access, IbkrBroker, Pace
from serving.ledger import Ledger

WEIGHTS = (0.9, float("nan"), 0.3, 0.9, 0.0, 0.0)
FIRST = 30  # the place of the first bar that is traded
QUICK = replace(FAST, patience=0.3, connect=1.0)
FRAME = bars(FIRST + len(WEIGHTS))
PATIENCE_SECONDS = 10.0  # only ever spent by a test that fails
ALERT_SECONDS = 60.0
PLACES = {"flat": 0, "holding": 2}  # bars traded before the strike


@dataclass
class Scene:
    """What a fault finds: a sleeve at work, the market and its gateway."""

    root: Path
    market: Market
    trading: Trading = field(init=False)
    skew: timedelta = timedelta(0)  # of the sleeve's clock
    kept: list[Any] = field(default_factory=list)  # what a strike leaves for its healing

    def do(self, act: Callable[[FakeTws], object]) -> None:
        """Do something to the gateway, in its thread."""
        assert self.market.remote is not None
        self.market.remote.do(act)

    def listen(self) -> None:
        assert self.market.remote is not None
        self.market.remote.listen()

    @classmethod
    def set(cls, root: Path, found: Market) -> "Scene":
        scene = cls(root, found)
        scene.start()
        return scene

    @property
    def path(self) -> Path:
        return self.root / "ledger.db"

    def clock(self) -> datetime:
        """What the sleeve's machine believes the time to be."""
        return self.market.clock() + self.skew

    def start(self) -> None:
        """Start a process from the ledger."""
        assert self.market.remote is not None

        def broker(access: Access, pace: Pace) -> IbkrBroker:
            return IbkrBroker(access, pace, self.clock)

        self.trading = Trading(
            self.root,
            self.market.remote.port,
            self.market.frame,
            WEIGHTS,
            ledger=lambda path: Ledger(path, busy_seconds=0.2),
            broker=broker,
            pace=QUICK,
        )

    def restart(self) -> None:
        """End the sleeve's process, as far as it still lives, and start it again."""
        self.trading.close()
        self.start()

    def order_refs(self) -> list[str]:
        """Return the names of all orders of ours that ever reached the broker."""
        orders = list(self.market.exchange.orders.values())
        refs = [order.ticket.order_ref for order in orders]
        return [ref for ref in refs if ref.startswith("ratchet-")]


Act = Callable[[Scene], None]


def nothing(scene: Scene) -> None:
    """What heals by itself."""


@dataclass(frozen=True)
class Fault:
    """One row: what strikes between a session's end and the decision on it."""

    name: str
    strike: Act = nothing
    says: str = ""  # a pattern: an event that must be there, or the words of the end
    heal: Act = nothing
    waits: tuple[str, ...] = ()  # of ``Pace``: what passes at most until it is told
    lasts: bool = False  # told again and again until it is healed
    halts: bool = False  # the process ends and says why; it goes on when started again
    goes_on: Act | None = None  # what happens instead of one decision while it lasts
    stops: bool = False  # the sleeve orders nothing more and says why: a person must look

    run: "Callable[[Fault, Path], list[str]] | None" = None  # a whole worker's instead, once
    refused: bool = False  # a second process is refused and says why; the first goes on

    @property
    def strikes(self) -> dict[str, int]:
        return PLACES if self.run is None else {"holding": PLACES["holding"]}

    @property
    def seconds(self) -> float:
        """The longest it takes until it is told, at the pace of real trading."""
        return float(sum(getattr(Pace(), name) for name in self.waits))

    @property
    def then(self) -> str:
        if self.halts:
            return "halts; a restart goes on"
        if self.refused:
            return "is refused; the first goes on"
        return "stops; a person compares" if self.stops else "goes on by itself"


def until(trading: Trading, condition: Callable[[], bool]) -> None:
    """Hear what comes until a condition holds, as a worker does between bars."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing came of it"
        trading.hear()
        trading.broker.wait_for_news(0.02)
    trading.hear()


def linked(trading: Trading) -> None:
    """Wait for the link to be back, and for all that waited for it to be settled."""

    def caught_up() -> bool:
        try:
            trading.caught_up()
        except BrokerUnavailable:
            return False
        return True

    until(trading, caught_up)


def play_session(trading: Trading, found: Market) -> None:
    """Play the open and the day of the next session; its close is the caller's."""
    for phase in (0, 1):
        found.play(trading.place, phase)
        linked(trading)


def play_on(trading: Trading, found: Market, until_place: int | None = None) -> None:
    """Live through whole sessions, whatever becomes of the link meanwhile."""
    while trading.place < (until_place or len(trading.frame)):
        play_session(trading, found)
        trading.close_bar()
        linked(trading)


def said(fault: Fault, root: Path, before: int, times: int = 1) -> bool:
    """Whether the ledger has the fault's event among those after the first ``before``."""
    heard = [event for event in events(root)[before:] if re.search(fault.says, event)]
    return not fault.says or len(heard) >= times


def survive(fault: Fault, place: int, root: Path) -> list[str]:
    """Trade a script, struck by a fault after ``place`` bars; return what does not hold."""
    if fault.run is not None:
        return fault.run(fault, root)
    with market(root, FRAME) as found:
        scene = Scene.set(root, found)
        try:
            play_on(scene.trading, found, FIRST + place)
            play_session(scene.trading, found)
            before = len(events(root))  # a busy machine may have lost the link by itself
            fault.strike(scene)
            if fault.goes_on:
                fault.goes_on(scene)
            elif fault.halts:
                _halt(fault, scene)
            else:
                _endure(fault, scene, before)
            play_on(scene.trading, found)
        finally:
            scene.trading.close()
        wrong = found.exchange.blind if fault.stops else audit(root, found.exchange)
        refs = scene.order_refs()
        wrong += [f"{ref}: sent twice" for ref in refs if refs.count(ref) > 1]
        if not fault.halts and not said(fault, root, before):
            wrong.append(f"nobody was told: no {fault.says!r} in {events(root)[before:]}")
        return wrong


def _endure(fault: Fault, scene: Scene, before: int) -> None:
    """Decide while it lasts; it is healed no sooner than it was told, and told again."""
    scene.trading.close_bar()
    if fault.heal is not nothing:
        times = 2 if fault.lasts else 1
        until(scene.trading, lambda: said(fault, scene.root, before, times))
    fault.heal(scene)
    linked(scene.trading)


def _halt(fault: Fault, scene: Scene) -> None:
    """Go on until the process ends by it, with its reason; heal, and start it again."""

    def go_on() -> None:
        scene.trading.close_bar()
        linked(scene.trading)
        play_on(scene.trading, scene.market)

    with pytest.raises(RatchetError, match=fault.says):
        go_on()
    fault.heal(scene)
    scene.restart()
    linked(scene.trading)


WAITS = frozenset(one.name for one in fields(Pace))
