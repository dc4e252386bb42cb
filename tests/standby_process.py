"""A worker in a process of its own: ``python standby_process.py HOME SHELF SPEED [standby]``.

Its lease is where RATCHET_LEASE says; SPEED is bars per second. It trades on paper, or with the
real IBKR broker where IB_PORT names a gateway's port.
"""

import os
import sys
from pathlib import Path

import serving_kit as world
from ibkr_kit import FAST

from core.home import Home
from serving.brokers.ibkr import Access, IbkrBroker
from serving.brokers.port import Broker
from serving.feeds import ReplayFeed
from serving.standby import wait_for_turn
from serving.worker import Worker


def broker() -> Broker | None:
    port = os.environ.get("IB_PORT")
    return IbkrBroker(Access(port=int(port), client_id=7), FAST) if port else None


def feed(speed: float) -> ReplayFeed:
    """Return the world's bars; at a broker, which knows of none, without split and dividends."""
    if not os.environ.get("IB_PORT"):
        return world.feed(speed)
    plain = {k: f.assign(split_ratio=1.0, dividend=0.0) for k, f in world.market().items()}
    return ReplayFeed(plain, world.PAPER_BARS, speed)


def main() -> None:
    home, shelf, speed = Home(Path(sys.argv[1])), Path(sys.argv[2]), float(sys.argv[3])
    if sys.argv[4:] == ["standby"]:
        print("waiting", flush=True)
        wait_for_turn(home, os.environ)
    Worker(
        home, world.params(), ["solo"], feed(speed), shelf=world.FolderShelf(shelf),
        broker=broker(),
    ).run()  # fmt: skip


if __name__ == "__main__":
    main()
