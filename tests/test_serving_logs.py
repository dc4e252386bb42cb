"""The worker's log: one JSON object a line, files that roll over, ids that join."""

import json
from pathlib import Path
from typing import Any

import pytest
import serving_kit as world

from core.home import Home
from serving import logs
from serving.ledger import LedgerReader, rows
from serving.worker import Worker


def lines(home: Home, name: str = "worker.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home.logs / name).read_text().splitlines()]


def test_files_roll_over_and_no_line_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "BYTES", 2_000)
    monkeypatch.setattr(logs, "FILES", 3)
    home = Home(tmp_path)
    with logs.logging_to(home) as log:
        for number in range(200):
            log.info("close", extra={"agent": "aapl", "number": number})
    names = sorted(path.name for path in home.logs.iterdir())
    assert names == ["worker.jsonl", *(f"worker.jsonl.{n}" for n in (1, 2, 3))]
    assert all((home.logs / name).stat().st_size <= 2_000 for name in names)
    kept = [one for name in ["worker.jsonl.3", "worker.jsonl.2", "worker.jsonl.1", "worker.jsonl"]
            for one in lines(home, name)]  # fmt: skip
    # The newest lines, without a gap: the oldest file is the one that goes.
    assert [one["number"] for one in kept] == list(range(200 - len(kept), 200))


def test_a_field_never_takes_the_place_of_time_level_or_message(tmp_path: Path) -> None:
    with logs.logging_to(Home(tmp_path)) as log:
        log.warning("alert", extra={"time": "then", "level": "critical", "weight": float("nan")})
    (line,) = lines(Home(tmp_path))
    assert (line["level"], line["weight"]) == ("warning", None)
    assert line["time"] != "then"


def test_an_order_is_followed_through_the_log_by_its_ids(tmp_path: Path) -> None:
    settings = world.params()
    shelf, home = world.shelf_with_both(tmp_path / "shelf", settings), Home(tmp_path / "home")
    Worker(home, settings, ["solo"], world.feed(), shelf=shelf, environment={}).run()
    written = lines(home)
    with LedgerReader(home.ledger) as ledger:
        for word, kind in (("intent", rows.Intent), ("order", rows.OrderStatus),
                           ("fill", rows.Fill)):  # fmt: skip
            told = [one["order_ref"] for one in written if one["message"] == word]
            assert told == [row.order_ref for row in ledger.rows(kind)]  # type: ignore[attr-defined]
    closes = {one["bar_time"]: one for one in written if one["message"] == "close"}
    for one in written:
        if one["message"] == "intent" and one["leg"] == "entry":
            ids = {name: one[name] for name in ("session", "agent", "bar_time", "order_ref")}
            assert ids.items() <= closes[one["bar_time"]].items()
