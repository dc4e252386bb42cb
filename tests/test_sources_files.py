"""Files that are written whole or not at all: what is on the disk at each step."""

import os
from pathlib import Path

import pytest

from core.errors import StorageError
from sources.files import write_whole


def test_content_is_on_the_disk_before_its_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made on the way"
    path, synced = folder / "lease", os.fsync
    write_whole(path, b"old")
    seen: list[tuple[str, bytes, list[bytes]]] = []

    def sync(handle: int) -> None:
        whose = os.fstat(handle).st_ino
        names = {one.stat().st_ino: one.name for one in (folder, *folder.iterdir())}
        others = [one.read_bytes() for one in folder.iterdir() if one != path]
        seen.append((names[whose], path.read_bytes(), others))
        synced(handle)

    monkeypatch.setattr(os, "fsync", sync)
    write_whole(path, b"new")
    assert seen == [
        (f".lease.{os.getpid()}.partial", b"old", [b"new"]),  # a name that no other process uses
        (folder.name, b"new", []),
    ]


def test_what_cannot_be_written_leaves_the_old_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lease"
    write_whole(path, b"old")

    def broken(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageError, match=r"lease: cannot be written .*Input/output error"):
        write_whole(path, b"new")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"old"]
