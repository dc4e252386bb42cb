"""Narration: what a worker does, line by line on the terminal of who started it.

Owns the words and how many of them. Hears the worker's log through a bounded queue in a thread of
its own, so that a terminal that stands still never holds up trading. The log has every detail, the
ledger every fact.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from core.masking import masked
from serving.logs import NAME

WAITING = 1000  # lines; more are dropped before trading waits
BURST = 20  # lines a second about orders; the rest is counted
CLOSE_SECONDS = 60.0  # between two lines that only say that an agent lives
END_SECONDS = 1.0  # what is left to say at the end has so long
KINDS = {"market_on_open": "at the open", "market": "at market"}

Waiting = queue.Queue[logging.LogRecord | None]  # None: the end


class _Dropping(logging.Handler):
    """Puts records into a queue; forgets those that do not fit."""

    def __init__(self, waiting: Waiting) -> None:
        super().__init__()
        self._waiting = waiting

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(record)


class Lines(logging.Handler):
    """Turns records of the worker's log into lines; called in one thread."""

    def __init__(
        self,
        stream: TextIO,
        secrets: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
        alive: bool = True,
    ) -> None:
        """``alive``: say now and then that a quiet agent lives; a file would grow by that."""
        super().__init__()
        self._alive = alive
        self._stream = stream
        self._secrets = secrets
        self._clock = clock
        self._second = (0, 0)  # which second, lines about orders in it
        self._lived: dict[str, float] = {}  # when an agent's last line was written
        self._left_out = 0
        self._said = ""  # the newest event: its alert need not say it again

    def emit(self, record: logging.LogRecord) -> None:
        fields = vars(record)
        words = self._words(record.getMessage(), fields)
        if words:
            moment = str(fields.get("bar_time") or "")[:16].replace("T", " ").removesuffix(" 00:00")
            at = time.strftime("%H:%M:%S", time.localtime(record.created))
            line = f"{at}  {fields.get('agent', ''):<10} {moment:<16}  {words}"
            self._write(line)

    def tell_left_out(self) -> None:
        """Say how many lines were too many."""
        if self._left_out:
            count, self._left_out = self._left_out, 0
            self._write(f"{'':<38}… {count} orders and fills more; `ratchet ledger orders`")

    def _write(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone is nobody's loss
            self._stream.write(masked(line, self._secrets).rstrip() + "\n")
            self._stream.flush()

    def _words(self, message: str, fields: dict[str, object]) -> str:
        match message:
            case "session":
                return _session(fields)
            case "close":
                return self._close(fields)
            case "intent" | "fill":
                return self._order(message, fields)
            case "order" | "watching":
                return ""
            case "alert":
                return self._alert(fields)
        detail = str(fields.get("detail") or fields.get("reason") or fields.get("version") or "")
        again, self._said = detail == self._said, detail
        if message == "failed" or (again and message == "stopped"):
            return ""  # the command's last word says it
        return f"{message}: {detail}".removesuffix(": ")

    def _close(self, fields: dict[str, object]) -> str:
        agent, now = str(fields["agent"]), self._clock()
        if not self._alive or now - self._lived.get(agent, -CLOSE_SECONDS) < CLOSE_SECONDS:
            return ""
        self._lived[agent] = now
        return f"{fields['action']}; equity {fields['equity']:,.2f}"

    def _order(self, message: str, fields: dict[str, object]) -> str:
        second = int(self._clock())
        if second != self._second[0]:
            self.tell_left_out()
            self._second = (second, 0)
        self._second = (second, self._second[1] + 1)
        if self._second[1] > BURST:
            self._left_out += 1
            return ""
        self._lived[str(fields["agent"])] = self._clock()
        shares = float(str(fields["shares"]))
        leg = "" if fields["leg"] == "entry" else f" by its {fields['leg']}"
        what = f"{abs(shares):,.10g} {fields['symbol']}"
        if message == "fill":
            return f"{'bought' if shares > 0 else 'sold'} {what} at {fields['price']}{leg}"
        how = KINDS.get(str(fields["kind"]), f"{fields['kind']}, its {fields['leg']}")
        version = f"version {fields['model_version']}"
        return f"orders to {'buy' if shares > 0 else 'sell'} {what}, {how} ({version})"

    def _alert(self, fields: dict[str, object]) -> str:
        alert = fields["alert"]
        if not isinstance(alert, dict) or (self._said and self._said in str(alert["detail"])):
            return ""
        fields["agent"] = alert["agent"]
        return f"{alert['level']}: {alert['detail']}"


def _session(fields: dict[str, object]) -> str:
    versions = fields["versions"]
    assert isinstance(versions, dict)
    who = ", ".join(f"{agent} by version {version}" for agent, version in versions.items())
    return f"session {fields['session']}: {who}; Ctrl-C ends it, `ratchet status` tells more"


@contextlib.contextmanager
def narrated(stream: TextIO, secrets: tuple[str, ...]) -> Iterator[None]:
    """Write to ``stream`` what the worker of this block does."""
    waiting: Waiting = queue.Queue(WAITING)
    lines = Lines(stream, secrets, alive=stream.isatty())
    thread = threading.Thread(
        target=_write_all, args=(waiting, lines), name="narration", daemon=True
    )
    handler = _Dropping(waiting)
    logger = logging.getLogger(NAME)
    logger.addHandler(handler)
    thread.start()
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(queue.Full):
            waiting.put(None, timeout=END_SECONDS)
        thread.join(END_SECONDS)


def _write_all(waiting: Waiting, lines: Lines) -> None:
    while (record := waiting.get()) is not None:
        lines.handle(record)
    lines.tell_left_out()
