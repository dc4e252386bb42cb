"""After a session its certificate is asked for, made by the flow, and stands on the version."""

import json
import sqlite3
import urllib.request
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import retrain_kit as kit
import serving_kit as world
from flows_kit import Served, wait_for

from core.home import Home
from flows.after_session import LOOK_SECONDS, SessionWatch, over
from pipelines.certificate import TAG, certify
from pipelines.enrolment import enrol
from registry.connection import connect
from serving.ledger import LedgerReader, rows
from serving.service import serve
from serving.worker import Worker

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SESSION_TAG = f"{TAG}.session-1"


@pytest.fixture(scope="module")
def traded(served: Served) -> Home:
    """Return the home of the Prefect server after a session of a registered version."""
    home = kit.home_with_data(served.home.root)
    enrol(home, kit.settings(), "planted", "random", seed=1, by="A. Turing", now=NOW)
    serve(home, kit.settings(), ["planted"])
    return home


def runs(served: Served) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{served.api}/flow_runs/filter",
        data=json.dumps({"flows": {"name": {"any_": ["parity"]}}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return list(json.load(reply))


def tags(home: Home) -> dict[str, str]:
    return dict(connect(home).get_model_version("planted", "1").tags)


def test_a_session_that_ended_is_certified_by_the_flow_and_its_version_says_so(
    served: Served, traded: Home
) -> None:
    watch, clock = SessionWatch(traded, served.api), iter(range(0, 10_000, int(LOOK_SECONDS)))
    # The runner may still be on its way to tell Prefect of its deployments.
    assert wait_for("the deployment", 90, lambda: watch.look(float(next(clock)))) == [1]
    assert watch.look(float(next(clock))) == []
    wait_for("the certificate", 240, lambda: SESSION_TAG in tags(traded))
    wait_for("the run's end", 60, lambda: runs(served)[0]["state_type"] == "COMPLETED")
    said = tags(traded)[SESSION_TAG]
    assert said.startswith("session 1, planted version 1, 40 bars: equal to the last bit; ")
    assert tags(traded)[TAG] == said
    # Another watch, after a restart, asks again: Prefect knows the session, and runs nothing.
    assert SessionWatch(traded, served.api).look(0.0) == [1]
    (run,) = runs(served)
    assert run["parameters"] == {"session": 1}


def test_what_was_changed_since_stands_on_the_version_by_bar_and_column(traded: Home) -> None:
    """The answer of one bar in place of another's: a session shifted by a bar."""
    with LedgerReader(traded.ledger) as ledger:
        sixth, seventh = ledger.rows(rows.Decision, session=1)[5:7]
        (model,) = ledger.rows(rows.Model, session=1)
    with closing(sqlite3.connect(traded.ledger)) as database:
        database.execute("DROP TRIGGER decisions_no_update")
        changed = database.execute(
            "UPDATE decisions SET observation = ? WHERE bar_time = ?",
            (sixth.observation, seventh.bar_time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")),
        ).rowcount
        database.commit()
    assert changed == 1
    (one,) = certify(traded, kit.settings(), 1)
    assert one.difference is not None
    assert one.difference.bar_time == seventh.bar_time
    assert one.difference.what == f"observation {model.observation_columns[0]}"
    assert "DIFFERS: planted at" in tags(traded)[SESSION_TAG]


def test_a_session_is_over_when_its_feed_ended_or_another_began(tmp_path: Path) -> None:
    settings, home = world.params(), Home(tmp_path / "home")
    shelf = world.shelf_with_both(tmp_path / "shelf", settings)
    assert over(home) == []
    for _ in range(2):
        Worker(home, settings, ("solo",), world.feed(), shelf=shelf, fresh=True,
               environment={}).run()  # fmt: skip
    assert over(home) == [1, 2]
    assert over(home, but={1}) == [2]
    with closing(sqlite3.connect(home.ledger)) as database:
        for table in ("session_events", "decisions"):
            database.execute(f"DROP TRIGGER {table}_no_delete")
        database.execute("DELETE FROM session_events WHERE kind = 'closed'")
        database.commit()
        assert over(home) == [1]
        database.execute("DELETE FROM decisions WHERE session = 1")
        database.commit()
        assert over(home) == []


def test_a_server_that_does_not_answer_is_asked_again_later(tmp_path: Path) -> None:
    settings, home = world.params(), Home(tmp_path / "home")
    shelf = world.shelf_with_both(tmp_path / "shelf", settings)
    Worker(home, settings, ("solo",), world.feed(), shelf=shelf, environment={}).run()
    watch = SessionWatch(home, "http://127.0.0.1:9/api")
    assert watch.look(0.0) == watch.look(LOOK_SECONDS) == []
    assert watch._asked == set()
