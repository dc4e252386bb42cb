"""What ``ratchet serve`` says on a terminal while it trades, and that it never waits for it."""

import io
import logging
import threading
from typing import Any

from flows.narration import BURST, CLOSE_SECONDS, WAITING, Lines, narrated
from serving.logs import NAME

INTENT: dict[str, Any] = {
    "agent": "aapl",
    "bar_time": "2026-03-02T00:00:00+00:00",
    "leg": "entry",
    "shares": -1200.0,
    "symbol": "AAPL",
    "kind": "market_on_open",
    "model_version": "3",
}
FILL = {**INTENT, "leg": "stop", "price": 172.5, "bar_time": "2026-03-03T14:35:00+00:00"}
CLOSE = {"agent": "aapl", "bar_time": None, "action": "hold", "equity": 99_175.964}


class Told:
    """Lines on a stream in memory, by a clock that stands until it is moved."""

    def __init__(self, secrets: tuple[str, ...] = (), alive: bool = True) -> None:
        self.now = 100.0
        self._stream = io.StringIO()
        self.lines = Lines(self._stream, secrets, lambda: self.now, alive)

    def hear(self, message: str, **fields: Any) -> None:
        record = logging.makeLogRecord({"msg": message, **fields})
        self.lines.handle(record)

    @property
    def said(self) -> list[str]:
        """Return the words of each line, without the time in front."""
        return [" ".join(line[10:].split()) for line in self._stream.getvalue().splitlines()]


def test_orders_fills_and_events_are_told_in_words() -> None:
    told = Told()
    told.hear("session", session=4, versions={"aapl": "3"})
    told.hear("intent", **INTENT)
    told.hear("order", **INTENT)
    told.hear("fill", **FILL)
    told.hear("link down", detail="127.0.0.1:4002: no answer")
    assert told.said == [
        "session 4: aapl by version 3; Ctrl-C ends it, `ratchet status` tells more",
        "aapl 2026-03-02 orders to sell 1,200 AAPL, at the open (version 3)",
        "aapl 2026-03-03 14:35 sold 1,200 AAPL at 172.5 by its stop",
        "link down: 127.0.0.1:4002: no answer",
    ]


def test_an_alert_is_told_unless_its_event_just_was() -> None:
    told = Told()
    told.hear("kill switch", detail="by A. Turing: fills look wrong")
    same = {
        "agent": "",
        "level": "critical",
        "detail": "kill switch: by A. Turing: fills look wrong",
    }
    told.hear("alert", alert=same)
    told.hear("alert", alert={"agent": "aapl", "level": "warning", "detail": "10 % below the peak"})
    assert told.said[1:] == ["aapl warning: 10 % below the peak"]


def test_a_quiet_agent_shows_once_a_minute_that_it_lives() -> None:
    told = Told()
    for _ in range(3):
        told.hear("close", **CLOSE)
    told.now += CLOSE_SECONDS
    told.hear("close", **CLOSE)
    assert told.said == ["aapl hold; equity 99,175.96"] * 2
    file = Told(alive=False)
    file.hear("close", **CLOSE)
    assert file.said == []


def test_a_burst_of_orders_is_counted_instead_of_told() -> None:
    told = Told()
    for _ in range(BURST + 7):
        told.hear("intent", **INTENT)
    assert len(told.said) == BURST
    told.now += 1.0
    told.hear("intent", **INTENT)
    assert told.said[BURST] == "… 7 orders and fills more; `ratchet ledger orders`"
    assert len(told.said) == BURST + 2


def test_the_end_by_an_error_is_left_to_the_error() -> None:
    told = Told()
    told.hear("failed", reason="SourceUnavailable: AAPL: no bars")
    told.hear("stopped", reason="SourceUnavailable: AAPL: no bars")
    assert told.said == []
    told.hear("stopped", reason="SIGINT")
    assert told.said == ["stopped: SIGINT"]


def test_nothing_confidential_is_told() -> None:
    told = Told(secrets=("hunter2-hunter2",))
    told.hear("feed", reason="https://me:hunter2-hunter2@example.com does not answer")
    assert told.said == ["feed: https://me:****@example.com does not answer"]


class Stuck(io.StringIO):
    """A terminal that somebody has stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.free = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.waits.set()
        self.free.wait()
        return super().write(text)


def test_a_terminal_that_stands_still_holds_nothing_up() -> None:
    stuck, logger = Stuck(), logging.getLogger(NAME)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with narrated(stuck, ()):
            logger.warning("first")
            assert stuck.waits.wait(60.0), "nothing was written"
            trading = threading.Thread(
                target=lambda: [logger.warning("more") for _ in range(2 * WAITING)], daemon=True
            )
            trading.start()
            trading.join(60.0)
            held_up = trading.is_alive()
            stuck.free.set()
    finally:
        stuck.free.set()
        logger.setLevel(level)
    assert not held_up
    assert "first" in stuck.getvalue()
    assert logger.handlers == []
