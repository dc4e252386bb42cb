"""Every writer of Ratchet's own files on a disk that is full; run as a program by a test.

``python full_disk.py FOLDER MOUNTED``: FOLDER is a small file system of its own where MOUNTED is
``yes``; else a limit on the size of files stands in for it. Every writer writes once, once more
while nothing fits, and again when there is room. Prints a JSON object: writer -> what was raised
(kind, message), whether what was there before was intact, and whether the repetition worked.
"""

import hashlib
import json
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from data_kit import delivered, market
from registry_kit import save_baseline
from study_kit import plan
from test_serving_ledger import MONDAY, rows_of_a_day

from core.errors import RatchetError
from core.home import Home
from core.settings import parse_params
from pipelines import featurize, snapshot
from registry import history
from serving.ledger import Ledger
from serving.ledger.reader import LedgerReader
from serving.ledger.rows import BarSeen
from sources import store
from sources.manifest import Manifest, enlist
from training.study import close_study, open_study

BARS = market("2022-01-03", "2024-06-28")
PARAMS = parse_params({"agents": {}, "features": {"include_vix": False, "anchor_years": 1}})
NOW = datetime(2024, 7, 1, tzinfo=UTC)

Write = Callable[[int], object]  # the n-th time
Look = Callable[[], object]  # what must be there still


def writers(home: Home) -> dict[str, tuple[Write, Look]]:
    """Return every writer with a look at what it has written."""

    def files(folder: Path) -> Look:
        return lambda: {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and path.name != ".lock"
        }

    def append(n: int) -> object:
        part = BARS.iloc[: 300 + 150 * n]
        return store.append(home, "csv", delivered(part))

    def enlisted(n: int) -> object:
        bars = store.read(home, "csv", "ABC", "1d").iloc[: 300 + n]
        return enlist(home, Manifest.of("ABC", "csv", "1d", bars))

    def features(n: int) -> object:
        snapshot.run(home, PARAMS, "ABC")
        bars = (home.data / "snapshot" / "ABC.parquet").read_bytes()
        home.make(home.data / "validated").joinpath("ABC.parquet").write_bytes(bars)
        return featurize.run(home, PARAMS, "ABC")

    def record(n: int) -> None:
        with Ledger(home.ledger) as ledger, ledger.transaction():
            for minute in range(40):  # more than a page
                ledger.add(*rows_of_a_day(MONDAY + timedelta(days=n, minutes=minute)))

    def recorded() -> object:
        with LedgerReader(home.ledger) as ledger:
            return len(ledger.rows(BarSeen))

    def judged(n: int) -> object:
        return history.append(home.promotions, NOW, "abc", "look", {"at": "x" * 9000, "n": n})

    def study(n: int) -> None:
        for number in range(8):  # more than a page
            name = open_study(home, plan(identity=f"{n}{number:x}" * 32)).study_name
            close_study(home, name)

    def studies() -> object:
        return open_study(home, plan(identity="00" * 32)).study_name

    return {
        "store": (append, files(home.store)),
        "manifest": (enlisted, files(home.workspace / "manifests")),
        "dataset": (features, files(home.data / "features")),
        "bundle": (
            lambda n: save_baseline(home.bundles / f"bundle-{n}"),
            files(home.bundles),
        ),
        "ledger": (record, recorded),
        "promotions": (judged, lambda: len(history.read(home.promotions))),
        "studies": (study, studies),
    }


@contextmanager
def no_room(folder: Path, mounted: bool) -> Iterator[None]:
    """Leave no room for another byte."""
    if mounted:
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                for size in (65_536, 4_096, 512):
                    while file.write(b"\0" * size) == size:
                        pass
            except OSError:
                pass
        yield
        filler.unlink()
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def tried(write: Write) -> tuple[str, str]:
    """Return kind and message of what a write raises."""
    try:
        write(1)
    except RatchetError as error:
        return type(error).__name__, str(error)
    except Exception as error:  # noqa: BLE001 - the test shows it
        return f"foreign {type(error).__name__}", str(error)
    return "nothing", ""


def main() -> None:
    folder, mounted = Path(sys.argv[1]), sys.argv[2] == "yes"
    home = Home(folder / "home")
    told = {}
    named = writers(home)
    for write, _ in named.values():
        write(0)
    before = {name: look() for name, (_, look) in named.items()}
    raised: dict[str, tuple[str, str]] = {}
    for name, (write, _) in named.items():
        with no_room(folder, mounted):
            raised[name] = tried(write)
    after = {name: look() for name, (_, look) in named.items()}
    partial = [str(path) for path in folder.rglob("*partial*")]
    for name, (write, look) in named.items():
        write(1)
        told[name] = {
            "kind": raised[name][0],
            "message": raised[name][1],
            "intact": before[name] == after[name],
            "repeated": look() != before[name] or name == "studies",
            "partial": partial,
        }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
