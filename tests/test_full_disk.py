"""A full disk: every writer says so, loses nothing, and works again when there is room."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import full_disk
import pytest

from core.home import PROJECT

SIZE = "size=12m"
OWN_DISK = ["unshare", "--map-root-user", "--mount", "sh", "-c"]  # in a namespace of one's own


def can_mount(folder: Path) -> bool:
    script = 'mount -t tmpfs -o "$1" none "$0"'
    try:
        tried = subprocess.run(
            [*OWN_DISK, script, str(folder), SIZE], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return tried.returncode == 0


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what happened to every writer: on a real full disk where one may be mounted."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = can_mount(folder)
    command = [sys.executable, full_disk.__file__, str(folder), "yes" if mounted else "no"]
    if mounted:
        script = 'mount -t tmpfs -o "$1" none "$0" && shift && exec "$@"'
        command = [*OWN_DISK, script, str(folder), SIZE, *command]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(PROJECT), str(PROJECT / "tests")))},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {"kinds": {"DiskFull"} if mounted else {"DiskFull", "StorageError"}} | json.loads(
        done.stdout
    )


PLACES = {
    "store": "store/csv/ABC/1d/",
    "manifest": "manifests/ABC.json",
    "dataset": "ABC.parquet",
    "bundle": "bundles/bundle-1",
    "ledger": "ledger.db",
    "promotions": "promotions.db",
    "studies": "studies.db",
}


@pytest.mark.parametrize("writer", PLACES)
def test_a_full_disk_is_named_and_nothing_is_lost(told: dict[str, Any], writer: str) -> None:
    found = told[writer]
    assert found["kind"] in told["kinds"], found
    assert PLACES[writer] in found["message"]
    assert found["intact"]
    assert found["partial"] == []
    assert found["repeated"]
