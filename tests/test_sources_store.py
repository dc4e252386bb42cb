"""The store: append-only, what was known when, and what a vendor may do to its past."""

import errno
import multiprocessing
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from data_kit import NOW, day, delivered, market

from core.errors import CorruptFile, DiskFull, NotEnoughData, StorageError, UnknownSymbol
from core.home import Home
from sources import store
from sources.files import parquet_bytes, read_parquet, write_whole
from sources.manifest import Manifest, enlist, manifest_path, read_bars

LATER = NOW + timedelta(days=10)
BARS = market()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def read(home: Home, as_of: datetime | None = None) -> pd.DataFrame:
    return store.read(home, "csv", "ABC", "1d", as_of)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


@pytest.mark.parametrize("name", ["a file", "a file/below"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").write_text("in the way")
    with pytest.raises(StorageError, match=r"a file.* where a folder must be; move it away"):
        write_whole(tmp_path / name / "bars.parquet", b"bars")
    assert (tmp_path / "a file").read_text() == "in the way"


def test_bars_come_back_as_they_were_delivered(home: Home) -> None:
    added = store.append(home, "csv", delivered(BARS))
    assert (added.new_rows, added.restated_rows) == (len(BARS), 0)
    pd.testing.assert_frame_equal(read(home), BARS, check_freq=False)


def test_a_second_ingest_adds_only_what_is_new(home: Home) -> None:
    store.append(home, "csv", delivered(BARS.iloc[:-3]))
    added = store.append(home, "csv", delivered(BARS, LATER))
    assert (added.new_rows, added.restated_rows) == (3, 0)
    assert added.segment is not None
    assert len(read_parquet(added.segment)[0]) == 3
    again = store.append(home, "csv", delivered(BARS, LATER))
    assert again == store.Appended(0, 0, None)
    assert len(files(home.store)) == 2


def test_a_changed_past_is_a_restatement_and_the_old_vintage_stays(home: Home) -> None:
    store.append(home, "csv", delivered(BARS))
    first = files(home.store)
    restated = BARS.copy()
    restated.loc[day("2024-03-01"), "close"] *= 1.001
    added = store.append(home, "csv", delivered(restated, LATER))
    assert (added.new_rows, added.restated_rows) == (0, 1)
    assert read(home).close[day("2024-03-01")] == restated.close[day("2024-03-01")]
    assert read(home, NOW).close[day("2024-03-01")] == BARS.close[day("2024-03-01")]
    assert first.items() <= files(home.store).items()  # nothing was rewritten


@pytest.mark.parametrize("ratio", [4.0, 0.1])
def test_a_back_adjustment_for_a_new_split_is_no_restatement(home: Home, ratio: float) -> None:
    new = market(splits={"2024-06-17": ratio}, dividends={"2024-02-15": 0.22})
    old = new[:"2024-05-31"]
    store.append(home, "csv", delivered(old, convention="split_adjusted"))
    offered = delivered(new, LATER, "split_adjusted")
    before = offered.frame.close[day("2024-02-15")]
    assert before == pytest.approx(old.close[day("2024-02-15")] / ratio, rel=1e-6)
    added = store.append(home, "csv", offered)
    assert (added.new_rows, added.restated_rows) == (len(new) - len(old), 0)
    assert np.allclose(read(home), new, rtol=1e-5)


def test_a_restatement_is_seen_through_a_new_split(home: Home) -> None:
    new = market(splits={"2024-06-17": 4.0})
    old = new[:"2024-05-31"].copy()
    new.loc[day("2024-03-01"), "low"] *= 0.99
    store.append(home, "csv", delivered(old, convention="split_adjusted"))
    added = store.append(home, "csv", delivered(new, LATER, "split_adjusted"))
    assert (added.new_rows, added.restated_rows) == (len(new) - len(old), 1)
    found = read(home)
    assert found.low[day("2024-03-01")] == pytest.approx(new.low[day("2024-03-01")], rel=1e-5)
    assert np.allclose(found, new, rtol=1e-5)


def test_an_unknown_history_says_what_to_run(home: Home) -> None:
    with pytest.raises(NotEnoughData, match="run `ratchet ingest ABC --source csv --path FILE`"):
        read(home)


def test_a_symbol_cannot_leave_the_store(home: Home) -> None:
    with pytest.raises(UnknownSymbol, match="is no symbol"):
        store.append(home, "csv", delivered(BARS, symbol="../../ABC"))


def test_the_same_bars_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        store.append(Home(tmp_path / name), "csv", delivered(BARS))
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_corrupted_segment_is_named(home: Home, damage: str) -> None:
    path = store.append(home, "csv", delivered(BARS)).segment
    assert path is not None
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes({"cut": content[:middle], "flipped": flipped, "emptied": b""}[damage])
    with pytest.raises(CorruptFile, match=r"000000-\w+.parquet: (does not read|has changed)"):
        read(home)
    with pytest.raises(CorruptFile):
        store.append(home, "csv", delivered(BARS, LATER))


def test_a_full_disk_loses_nothing_and_leaves_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append(home, "csv", delivered(BARS.iloc[:-3]))
    before = files(home.store)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            DiskFull, match=r"000001-\w+.parquet: no space left.*nothing was written"
        ):
            store.append(home, "csv", delivered(BARS, LATER))
    assert files(home.store) == before
    assert not list(home.store.rglob("*.partial"))
    assert store.append(home, "csv", delivered(BARS, LATER)).new_rows == 3


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(StorageError, match=r"store/csv/ABC/1d: cannot be written"):
        store.append(Home(tmp_path), "csv", delivered(BARS))


def _append_days(root: Path, start: int) -> None:
    for stop in range(start, len(BARS), 16):
        store.append(Home(root), "csv", delivered(BARS.iloc[: stop + 1]))


def test_two_processes_may_ingest_one_symbol(home: Home) -> None:
    context = multiprocessing.get_context("spawn")  # a fork would take along what other tests began
    workers = [context.Process(target=_append_days, args=(home.root, n)) for n in (60, 68)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    pd.testing.assert_frame_equal(read(home), BARS.iloc[: len(read(home))], check_freq=False)
    rows = sum(len(read_parquet(p)[0]) for p in home.store.rglob("*.parquet"))
    assert rows == len(read(home)) >= len(BARS) - 16  # each bar once


def test_a_manifest_is_the_same_in_every_home_however_it_was_ingested(tmp_path: Path) -> None:
    whole, parts = Home(tmp_path / "a"), Home(tmp_path / "b")
    store.append(whole, "csv", delivered(BARS))
    for stop in (50, 90, len(BARS)):
        store.append(parts, "csv", delivered(BARS.iloc[:stop], NOW + timedelta(days=stop)))
    assert read(whole).equals(read(parts))
    both = [Manifest.of("ABC", "csv", "1d", read(home)) for home in (whole, parts)]
    assert both[0] == both[1]


def test_a_manifest_reads_the_vintage_it_names(home: Home) -> None:
    store.append(home, "csv", delivered(BARS.iloc[:-3]))
    old = Manifest.of("ABC", "csv", "1d", read(home))
    restated = BARS.copy()
    restated.loc[day("2024-03-01"), "volume"] += 1000
    store.append(home, "csv", delivered(restated, LATER))
    assert read_bars(home, old).equals(BARS.iloc[:-3])
    new = Manifest.of("ABC", "csv", "1d", read(home))
    assert new != old
    assert read_bars(home, new).equals(restated)


def test_a_manifest_of_bars_nobody_has_says_what_to_run(home: Home) -> None:
    manifest = Manifest.of("ABC", "csv", "1d", BARS)
    with pytest.raises(
        NotEnoughData, match=r"no vintage of the 124 bars to 2024-06-28.*ingest ABC"
    ):
        read_bars(home, manifest)


def test_a_manifest_survives_its_file_and_is_listed_for_dvc(home: Home) -> None:
    manifest = Manifest.of("ABC", "csv", "5m", BARS)
    enlist(home, manifest)
    path = manifest_path(home, "ABC", "5m")
    assert path.name == "ABC-5m.json"
    assert Manifest.load(path) == manifest
    assert '- "ABC-5m"' in (path.parent / "datasets.yaml").read_text()


def test_a_broken_manifest_is_named(home: Home) -> None:
    path = manifest_path(home, "ABC", "1d")
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(CorruptFile, match=r"ABC.json: is no manifest"):
        Manifest.load(path)


def test_parquet_bytes_depend_on_the_data_alone() -> None:
    stamped = BARS.copy()
    stamped.attrs["made"] = datetime.now(UTC).isoformat()
    assert parquet_bytes(stamped) == parquet_bytes(BARS.copy())
    assert parquet_bytes(BARS * 1.0000001) != parquet_bytes(BARS)
