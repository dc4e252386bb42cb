"""A worker with challengers, killed by itself: ``python shadow_process.py ROOT WHEN``.

WHEN, once some rows of its shadows are durable: ``inside a bar``, ``inside the shadows' rows``, or
``after the last bar``, with shadows that are behind.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import serving_kit as world
from shadow_kit import ChallengerShelf

from core.home import Home
from serving import shadow as shadow_module
from serving import worker as worker_module
from serving.ledger import Ledger, rows
from serving.ledger.shadow_rows import ShadowBar
from serving.shadow import Shadows
from serving.worker import Worker

PAPER_BARS = 16
DURABLE = 8  # rows of shadows, before it dies


class DyingLedger(Ledger):
    when, added, durable = "", 0, 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with super().transaction():
            yield
        self.durable = self.added

    def add(self, *added: rows.Row) -> None:
        super().add(*added)
        shadows = sum(isinstance(row, ShadowBar) for row in added)
        closed = any(isinstance(row, rows.Equity) for row in added)
        if self.durable >= DURABLE and (
            (shadows and self.when == "inside the shadows' rows")
            or (closed and self.when == "inside a bar")
        ):
            os.kill(os.getpid(), signal.SIGKILL)
        self.added += shadows


class LaggingShadows(Shadows):
    """Write no more than they must, and die with the worker when the feed has ended."""

    def write(self, ledger: Ledger) -> None:
        if isinstance(ledger, DyingLedger) and ledger.durable < DURABLE:
            super().write(ledger)

    def drain(self, ledger: Ledger, beat: Callable[[], None]) -> None:
        while isinstance(ledger, DyingLedger) and ledger.durable < DURABLE:
            self.write(ledger)
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)


def settings() -> world.Params:
    return world.params(
        split={"paper_bars": PAPER_BARS},
        paper={"alias_poll_seconds": 0.5, "snapshot_seconds": 0.25},
    )


def worker(home: Home, shelf: ChallengerShelf, bars_per_second: float = 0.0) -> Worker:
    feed = world.feed(bars_per_second, PAPER_BARS)
    return Worker(
        home, settings(), ("solo", "pair"), feed, shelf=shelf, challengers=shelf, environment={}
    )


def main() -> None:
    root = Path(sys.argv[1])
    DyingLedger.when = sys.argv[2]
    worker_module.Ledger = DyingLedger  # type: ignore[misc]
    if DyingLedger.when == "after the last bar":
        shadow_module.ROWS_AT_ONCE = 1
        worker_module.Shadows = LaggingShadows  # type: ignore[misc]
    worker(Home(root / "home"), ChallengerShelf(root / "shelf"), bars_per_second=4.0).run()


if __name__ == "__main__":
    main()
