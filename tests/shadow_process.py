"""A worker with challengers, killed by itself: ``python shadow_process.py ROOT WHEN``.

WHEN: ``inside a bar``, once some rows of its shadows are durable, or ``inside the shadows' rows``.
"""

import os
import signal
import sys
from pathlib import Path

import serving_kit as world
from shadow_kit import ChallengerShelf

from core.home import Home
from serving import worker as worker_module
from serving.ledger import Ledger, rows
from serving.ledger.shadow_rows import ShadowBar
from serving.worker import Worker

PAPER_BARS = 16


class DyingLedger(Ledger):
    when, durable = "", 0

    def add(self, *added: rows.Row) -> None:
        super().add(*added)
        shadows = sum(isinstance(row, ShadowBar) for row in added)
        closed = any(isinstance(row, rows.Equity) for row in added)
        if (shadows and self.durable >= 8 and self.when == "inside the shadows' rows") or (
            closed and self.durable >= 8 and self.when == "inside a bar"
        ):
            os.kill(os.getpid(), signal.SIGKILL)
        self.durable += shadows


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
    worker(Home(root / "home"), ChallengerShelf(root / "shelf"), bars_per_second=4.0).run()


if __name__ == "__main__":
    main()
