"""Jitter: what the fake TWS says comes in pieces, late, and between other words, by a seed.

Without it all that one step causes goes out in one burst, so a word that IBKR says by itself (a
push: a status, an order's end, a fill, a fee, a position, a bar, a tick) never falls into the
answer to a question. With it, each client's way out does what a real one may:

- bytes go out in pieces that end after a message or inside one, with pauses;
- a push waits for a while, and then goes before, into or behind the answers that wait to go out;
- pushes that were kept back are lost with the connection;
- pushes of one moment change places with those of other kinds: IBKR promises no order of status,
  openOrder, execution, position and error. Those of one kind keep theirs, and a fee comes behind
  its execution.

What stays true: an answer tells what was so when it was given, and no older word of an answer comes
behind a newer push about the same order or position. Knows framing and kinds, no meaning.
"""

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import dataclass

from fake_tws.protocol import frame
from fake_tws.replies import Message, Reply

VARIABLE = "TWS_JITTER"  # a seed: every fake TWS of the process has it
PAUSES = (0.0, 0.0, 0.001, 0.004, 0.012)  # seconds between two pieces, drawn alike
INSIDE = 0.3  # of pieces end inside a message
STAYS = 0.5  # of the times a push could go, it waits on

LANES = {Reply.COMMISSION_REPORT: Reply.EXECUTION}  # kinds that keep their order among each other
ABOUT = {  # what a kind is about, and the field that says which
    Reply.OPEN_ORDER: ("order", 1),
    Reply.ORDER_STATUS: ("order", 1),
    Reply.POSITION: ("contract", 3),
    Reply.EXECUTION: ("fill", 14),
    Reply.COMMISSION_REPORT: ("fill", 2),
    Reply.HISTORICAL_DATA: ("bars", 1),
    Reply.HISTORICAL_DATA_UPDATE: ("bars", 1),
}


@dataclass(frozen=True, slots=True)
class Jitter:
    """What makes every connection's way out uneven."""

    seed: int
    pauses: tuple[float, ...] = PAUSES

    @classmethod
    def from_environment(cls) -> "Jitter | None":
        seed = os.environ.get(VARIABLE)
        return cls(int(seed)) if seed else None

    def way(self, number: int, write: Callable[[bytes], None]) -> "Way":
        """Return the way out of the connection of that number."""
        return Way(random.Random(f"{self.seed}/{number}"), self.pauses, write)


@dataclass(frozen=True, slots=True)
class _Word:
    """A message on its way."""

    message: Message
    pushed: bool

    @property
    def lane(self) -> int:
        kind = int(self.message[0])
        return LANES.get(Reply(kind), kind)

    @property
    def subject(self) -> tuple[str, str] | None:
        about = ABOUT.get(Reply(int(self.message[0])))
        return about and (about[0], self.message[about[1]])


class Way:
    """What waits to go out to one client; lives in the event loop."""

    def __init__(
        self, rng: random.Random, pauses: tuple[float, ...], write: Callable[[bytes], None]
    ) -> None:
        self._rng = rng
        self._pauses = pauses
        self._write = write
        self._fresh: list[_Word] = []  # pushes of this moment
        self._late: list[_Word] = []  # pushes that wait for their turn
        self._queue: list[_Word] = []
        self._begun = b""  # the rest of a message that was cut
        self._timer: asyncio.TimerHandle | None = None

    def say(self, message: Message, *, pushed: bool) -> None:
        """Let a message go out some time."""
        (self._fresh if pushed else self._queue).append(_Word(message, pushed))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(0.0, self._step)

    @property
    def waits(self) -> bool:
        """Whether anything has not gone out yet."""
        return bool(self._fresh or self._late or self._queue or self._begun)

    def flush(self) -> None:
        """Let what was said go out at once, as a socket that is closed in order does.

        Of the pushes that were kept back, the newest may never have left; those of this moment are
        why it is closed.
        """
        del self._late[self._rng.randint(0, len(self._late)) :]
        self._mix()
        self._queue += self._late
        self._late.clear()
        self._send(len(self._queue))
        self.stop()

    def stop(self) -> None:
        """Say nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for words in (self._fresh, self._late, self._queue):
            words.clear()

    def _step(self) -> None:
        self._timer = None
        self._mix()
        while self._late and self._rng.random() >= STAYS:
            self._insert(self._late.pop(0))
        if self._queue or self._begun:
            self._send(self._rng.randint(0, len(self._queue)))
        if self.waits:
            pause = self._rng.choice(self._pauses)
            self._timer = asyncio.get_running_loop().call_later(pause, self._step)

    def _mix(self) -> None:
        """Let pushes of one moment change places with those of other kinds."""
        lanes: dict[int, list[_Word]] = {}
        for word in self._fresh:
            lanes.setdefault(word.lane, []).append(word)
        turns = [kind for kind, words in lanes.items() for _ in words]
        self._rng.shuffle(turns)
        self._late += [lanes[kind].pop(0) for kind in turns]
        self._fresh.clear()

    def _insert(self, push: _Word) -> None:
        """Put a push among what waits: not before older ones, nor older words on its subject."""
        subject = push.subject
        before = [
            place
            for place, word in enumerate(self._queue, start=1)
            if word.pushed or (subject is not None and word.subject == subject)
        ]
        self._queue.insert(self._rng.randint(max(before, default=0), len(self._queue)), push)

    def _send(self, count: int) -> None:
        """Send the next messages, perhaps without the end of the last."""
        piece = self._begun + b"".join(frame(word.message) for word in self._queue[:count])
        del self._queue[:count]
        cut = len(piece)
        if self._queue and piece and self._rng.random() < INSIDE:
            cut = self._rng.randint(1, len(piece))
        self._begun = piece[cut:]
        if cut:
            self._write(piece[:cut])
