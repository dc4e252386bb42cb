"""A paper worker in a process of its own: ``python standby_process.py HOME SHELF SPEED [standby]``.

Its lease is where RATCHET_LEASE says; SPEED is bars per second.
"""

import os
import sys
from pathlib import Path

import serving_kit as world

from core.home import Home
from serving.standby import wait_for_turn
from serving.worker import Worker


def main() -> None:
    home, shelf, speed = Home(Path(sys.argv[1])), Path(sys.argv[2]), float(sys.argv[3])
    if sys.argv[4:] == ["standby"]:
        print("waiting", flush=True)
        wait_for_turn(home, os.environ)
    Worker(home, world.params(), ["solo"], world.feed(speed), shelf=world.FolderShelf(shelf)).run()


if __name__ == "__main__":
    main()
