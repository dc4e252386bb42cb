"""A worker in a process of its own, to be killed: ``python serving_process.py ROOT [CRASH]``.

CRASH is ``before:N`` or ``after:N``: die, as by kill -9, before or after the broker takes the N-th
order of this process, or ``inside:N``: in the middle of the N-th bar's transaction.
"""

import os
import signal
import sys
from pathlib import Path

import serving_kit as world

from serving.brokers.paper import PaperBroker
from serving.brokers.port import Report, Ticket
from serving.ledger import Ledger, rows
from serving.worker import Worker

PAPER_BARS = 24


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingBroker(PaperBroker):
    def __init__(self, when: str, count: int) -> None:
        super().__init__()
        self.when, self.left = when, count

    def place(self, ticket: Ticket) -> Report:
        self.left -= 1
        if self.when == "before" and self.left == 0:
            die()
        report = super().place(ticket)
        if self.when == "after" and self.left == 0:
            die()
        return report


class DyingLedger(Ledger):
    left = 0

    def add(self, *added: rows.Row) -> None:
        super().add(*added)
        if any(isinstance(row, rows.Equity) for row in added):
            DyingLedger.left -= 1
            if DyingLedger.left == 0:
                die()


def settings() -> world.Params:
    return world.params(
        split={"paper_bars": PAPER_BARS},
        paper={"alias_poll_seconds": 0.5, "snapshot_seconds": 0.25},
    )


def main() -> None:
    root, crash = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "never:0"
    when, count = crash.split(":")
    if when == "inside":
        import serving.worker

        DyingLedger.left = int(count)
        serving.worker.Ledger = DyingLedger  # type: ignore[misc]
    Worker(
        world.home_at(root / "home"), settings(), ["solo", "pair"],
        world.feed(paper_bars=PAPER_BARS), shelf=world.FolderShelf(root / "shelf"),
        broker=DyingBroker(when, int(count)), environment={},
    ).run()  # fmt: skip
    heavy = {"torch", "ray", "optuna", "mlflow", "prefect"} & set(sys.modules)
    print("heavy:", *sorted(heavy))


if __name__ == "__main__":
    main()
