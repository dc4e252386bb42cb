"""Shadows: challengers beside Production, in a thread of their own that trading never waits for.

Owns the thread, and the way of its rows to the ledger. The worker's loop tells each bar after its
orders have left and writes the rows while no bar waits; computing pauses while the loop lives
through a bar. Whatever goes wrong here ends shadows, with an event, and nothing else. A restart
goes on from the ledger (``serving/shadow_resume.py``).
"""

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread

import pandas as pd

from core.accounts import State
from core.errors import RatchetError, ServiceUnavailable, StorageError
from core.home import Home
from core.settings import Params
from serving.challengers import Challengers
from serving.closing import Close
from serving.comparison import Histories, Lived
from serving.following import Published
from serving.ledger import Ledger, LedgerReader
from serving.ledger.rows import RiskEvent, Row
from serving.ledger.shadow_rows import ShadowEnd
from serving.logs import NAME
from serving.ring import DECIDED, Ring, figures
from serving.shadow_resume import resumed
from serving.sleeve import Sleeve

MOST_BEHIND = 5_000  # bars told and not yet lived through: then the shadows end
ROWS_AT_ONCE = 500  # written between two looks whether a bar waits
LOOK_EVERY = 5  # polls of Production's alias
PATIENCE_SECONDS = 10.0  # without a step, when the feed has ended

Vix = Callable[[], pd.Series | None]


class Shadows:
    """Every agent's challengers. The worker's loop calls what is public, the thread the rest."""

    def __init__(self, home: Home, params: Params, challengers: Challengers | None) -> None:
        """Without ``challengers``, or with none wanted, nothing ever runs."""
        self._home = home
        self._params = params
        self._challengers = challengers
        self._session = 0
        self._rings: dict[str, Ring] = {}
        self._bars: queue.SimpleQueue[tuple[Lived, State]] = queue.SimpleQueue()
        self._out: deque[tuple[Row, ...]] = deque()  # what belongs together is written together
        self._verdicts: deque[ShadowEnd] = deque()  # durable, and not yet acted on
        self._heard = self._lived = 0  # bars
        self._resuming = False  # lives through what it missed before a restart
        self._steps = 0
        self._free, self._stop = Event(), Event()
        self._free.set()
        self._thread = Thread(target=self._run, name="shadows", daemon=True)
        self._off = challengers is None or not params.shadow.versions
        self._log = logging.getLogger(NAME)

    def open(self, session: int, sleeves: Mapping[str, Sleeve], vix: Vix) -> None:
        """Begin beside these sleeves, which have lived through everything recorded."""
        if self._off or self._challengers is None:
            return
        self._session = session
        for name, sleeve in sleeves.items():
            same = sleeve.signal is sleeve.traded
            traded = sleeve.traded.copy()
            signal = traded if same else sleeve.signal.copy()
            seen = Histories(traded, signal)
            seen.vix = _vix_of(sleeve, vix)
            self._rings[name] = Ring(
                name,
                session,
                sleeve.trader.version,
                seen,
                self._challengers,
                self._params.shadow,
                self._params.validation.calendar,
                self._turn,
            )
        self._resuming = True
        self._thread.start()

    def hear(self, close: Close, sleeve: Sleeve, vix: Vix) -> None:
        """Take note of a bar of Production's; its orders have left."""
        if self._off:
            return
        lived = Lived(
            agent=close.agent,
            production=Published(close.model_version, close.bundle_sha256),
            bar=close.bar,
            traded=close.traded,
            signal=close.signal,
            skipped=close.skipped,
            stale=bool(close.too_old),
            rules=sleeve.rules,
            vix=_vix_of(sleeve, vix),
        )
        self._heard += 1
        self._bars.put((lived, close.before))
        if self._heard - self._lived > MOST_BEHIND:
            self._end_all(f"{MOST_BEHIND} bars behind; a restart of the worker catches up")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let nothing of the shadows be computed meanwhile, but for what has begun."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def write(self, ledger: Ledger) -> None:
        """Put rows into the ledger, some hundred at most; a failure ends shadows and no more."""
        batches: list[tuple[Row, ...]] = []
        while self._out and sum(map(len, batches)) < ROWS_AT_ONCE:
            batches.append(self._out.popleft())
        if not batches:
            return
        try:
            with ledger.transaction():
                for batch in batches:
                    ledger.add(*batch)
        except StorageError as error:
            self._off = True
            self._stop.set()
            self._log.error("shadow off", extra={"reason": f"not recorded: {error}"})
            return
        told = [row for batch in batches for row in batch if isinstance(row, ShadowEnd)]
        self._verdicts.extend(one for one in told if one.verdict in DECIDED)

    def drain(self, ledger: Ledger, beat: Callable[[], None]) -> None:
        """After the last bar: let the shadows come to its end, as long as they get on."""
        done, since = -1, time.monotonic()
        while self._thread.is_alive() and self._busy:
            beat()
            self.write(ledger)
            if self._steps != done:
                done, since = self._steps, time.monotonic()
            elif time.monotonic() - since > PATIENCE_SECONDS:
                detail = (
                    f"no step for {PATIENCE_SECONDS:g} s, {self._heard - self._lived} bars behind"
                )
                self._note("", "shadow off", detail)
                break
            self._stop.wait(0.01)
        self.write(ledger)

    def end(self) -> None:
        """Let the thread go; one that hangs dies with the process."""
        self._stop.set()
        self._free.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=1.0)

    @property
    def _busy(self) -> bool:
        behind = self._resuming or self._lived < self._heard
        return behind or bool(self._out) or bool(self._verdicts)

    def _turn(self) -> None:
        """Wait until the loop lives through no bar; not for ever, or a replay would starve it."""
        self._free.wait(1.0)

    def _run(self) -> None:
        try:
            self._resume()
            self._resuming = False
            every = LOOK_EVERY * self._params.paper.alias_poll_seconds
            due = 0.0
            while not self._stop.is_set():
                if time.monotonic() >= due:
                    for ring in self._rings.values():
                        ring.look()
                    due = time.monotonic() + every
                self._act()
                try:
                    lived, before = self._bars.get(timeout=min(every, 0.1))
                except queue.Empty:
                    continue
                ring = self._rings[lived.agent]
                if not ring.off:
                    with self._guarding(ring):
                        self._put(ring.live(lived, before))
                self._lived += 1
        except Exception as error:  # noqa: BLE001  (a defect here must not reach the trading)
            self._end_all(f"{type(error).__name__}: {error}")

    @contextmanager
    def _guarding(self, ring: Ring) -> Iterator[None]:
        """Let one agent's trouble be that of its own shadows."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  (as in ``_run``)
            ring.off = True
            self._note(ring.agent, "shadow off", f"{type(error).__name__}: {error}")

    def _resume(self) -> None:
        with LedgerReader(self._home.ledger) as ledger:
            for ring in self._rings.values():
                with self._guarding(ring):
                    self._verdicts.extend(ring.know(ledger))
                    found = resumed(ledger, self._session, ring.agent, ring.seen, ring.calendar)
                    for made in ring.catch_up(found, self._stop.is_set):
                        self._put(made)

    def _put(self, made: list[Row]) -> None:
        self._steps += 1
        if made:
            self._out.append(tuple(made))

    def _act(self) -> None:
        """Carry verdicts that are durable to the registry; those it does not hear wait."""
        while self._verdicts:
            end = self._verdicts[0]
            try:
                done = self._carried(end)
            except ServiceUnavailable:
                return
            except RatchetError as error:
                done = f"version {end.model_version} is not promoted: {error}"
            self._verdicts.popleft()
            if done and end.session == self._session:
                self._note(end.agent, "shadow", done)

    def _carried(self, end: ShadowEnd) -> str:
        if self._challengers is None:
            return ""
        if end.verdict == "drop":
            return self._challengers.drop(end.agent, end.model_version, figures(end))
        if not self._params.shadow.promotes:
            return ""
        return self._challengers.promote(
            end.agent, end.model_version, end.production_version, figures(end)
        )

    def _note(self, agent: str, kind: str, detail: str) -> None:
        self._log.warning(kind, extra={"agent": agent, "detail": detail})
        row = RiskEvent(session=self._session, agent=agent, bar_time=None, kind=kind, detail=detail)
        self._out.append((row,))

    def _end_all(self, why: str) -> None:
        self._off = True
        self._stop.set()
        self._note("", "shadow off", why)


def _vix_of(sleeve: Sleeve, vix: Vix) -> pd.Series | None:
    """Return the VIX where Production itself has just asked for it: never the shadows' question."""
    return vix() if sleeve.trader.bundle.spec.uses_vix else None
