"""Production changes through the gate or a named person, can go back, and leaves a record."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from registry_kit import QUICK, home_with_mlflow, save_baseline, strong, world

from core.errors import (
    CorruptFile,
    PromotionRefused,
    RegistryError,
    ServiceUnavailable,
    UnknownVersion,
)
from core.home import Home
from registry import history, models, promotion
from registry.attempts import (
    earlier_looks,
    record_look,
    record_trials,
    record_verdict,
    trials,
)
from registry.connection import connect
from registry.gate import judge

START = datetime(2026, 3, 2, 21, tzinfo=UTC)
GOOD = judge(strong(), QUICK)
POOR = judge(world(0.0, np.random.default_rng(1)), QUICK)


def hours(number: float) -> datetime:
    return START + timedelta(hours=number)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Four versions: a baseline, and three that pass for candidates."""
    home = home_with_mlflow(tmp_path_factory.mktemp("home"))
    for seed, algorithm in enumerate(("flat", "ppo", "ppo", "ppo"), start=1):
        folder = home.root / "made" / str(seed)
        kind = algorithm if algorithm == "flat" else "random"
        save_baseline(folder, kind, seed=seed, algorithm=algorithm)
        models.register(home, "demo", folder)
    return home


@pytest.fixture
def home(registry: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The same versions without aliases, and an empty ledger."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    registry.promotions.unlink(missing_ok=True)
    for alias in models.ALIASES:
        models.set_alias(registry, "demo", alias, None)
    for version in models.versions(registry, "demo"):
        if "ledger_entry" in version.tags:
            number = str(version.number)
            connect(registry).delete_model_version_tag("demo", number, "ledger_entry")
    return registry


def judged(home: Home, number: int, good: bool = True, champion: int | None = 1) -> None:
    version = models.version(home, "demo", number)
    record_verdict(home, version, GOOD if good else POOR, champion, START)


def climb(home: Home) -> None:
    """Version 1 installed, then 2, then 3 promoted through the gate, an hour apart."""
    promotion.install(home, "demo", 1, hours(0))
    judged(home, 2)
    promotion.promote(home, "demo", 2, hours(1))
    judged(home, 3, champion=2)
    promotion.promote(home, "demo", 3, hours(2))


def test_the_gate_promotes_and_the_aliases_follow(home: Home) -> None:
    climb(home)
    assert models.aliases(home, "demo") == {"Production": 3, "Previous": 2}
    assert promotion.discrepancies(home, "demo") == []
    change = promotion.production_history(home, "demo")[-1]
    assert (change.by, change.replaced, change.gate_report_sha256) == ("gate", 2, GOOD.sha256)
    assert change.dataset_sha256 == "d" * 64
    assert str(change) == (
        "demo: version 3 is Production in place of version 2 (promote by gate: promote: passed "
        "all 10 tests) since 2026-03-02 23:00:00 UTC"
    )


def test_what_the_gate_refused_needs_a_person_and_a_reason(home: Home) -> None:
    promotion.install(home, "demo", 1, hours(0))
    with pytest.raises(PromotionRefused, match="version 2: the gate never judged this bundle"):
        promotion.promote(home, "demo", 2, hours(1))
    judged(home, 2, good=False)
    with pytest.raises(PromotionRefused, match=r"2: refuse: Sharpe .* override with a name"):
        promotion.promote(home, "demo", 2, hours(1))
    for by, reason in (("ada", ""), ("", "I want it"), (" ", "x"), ("gate", "x")):
        with pytest.raises(PromotionRefused, match="needs a named person and a reason"):
            promotion.promote(home, "demo", 2, hours(1), by=by, reason=reason)
    assert models.aliases(home, "demo") == {"Production": 1}
    change = promotion.promote(home, "demo", 2, hours(1), by="ada", reason="a drill")
    assert (change.by, change.reason, change.gate_verdict) == ("ada", "a drill", "refuse")
    assert models.aliases(home, "demo") == {"Production": 2, "Previous": 1}


def test_a_verdict_against_another_champion_does_not_count(home: Home) -> None:
    promotion.install(home, "demo", 1, hours(0))
    judged(home, 2)
    judged(home, 3)
    promotion.promote(home, "demo", 2, hours(1))
    with pytest.raises(PromotionRefused, match="judged against version 1, but Production is now"):
        promotion.promote(home, "demo", 3, hours(2))


def test_only_a_baseline_may_come_first(home: Home) -> None:
    with pytest.raises(PromotionRefused, match="version 2 is ppo, not a baseline"):
        promotion.install(home, "demo", 2, hours(0))
    promotion.install(home, "demo", 1, hours(0))
    with pytest.raises(PromotionRefused, match="version 1 is Production already"):
        promotion.install(home, "demo", 1, hours(1))
    with pytest.raises(PromotionRefused, match="version 1 is Production already"):
        promotion.promote(home, "demo", 1, hours(1), by="ada", reason="again")


def test_rolling_back_walks_the_history_and_stops_at_the_first(home: Home) -> None:
    climb(home)
    change = promotion.rollback(home, "demo", "ada", "it loses", hours(3))
    assert (change.number, change.replaced) == (2, 3)
    assert models.aliases(home, "demo") == {"Production": 2, "Previous": 1}
    promotion.rollback(home, "demo", "ada", "this, too", hours(4))
    assert models.aliases(home, "demo") == {"Production": 1}
    with pytest.raises(UnknownVersion, match=r"no earlier Production .* version 1 is the"):
        promotion.rollback(home, "demo", "ada", "more", hours(5))
    judged(home, 4)
    promotion.promote(home, "demo", 4, hours(6))
    assert models.aliases(home, "demo") == {"Production": 4, "Previous": 1}
    with pytest.raises(PromotionRefused, match="a rollback needs who and why"):
        promotion.rollback(home, "demo", "ada", "", hours(7))


def test_without_any_production_there_is_nothing_to_roll_back(home: Home) -> None:
    with pytest.raises(UnknownVersion, match="no earlier Production to go back to: there is none"):
        promotion.rollback(home, "demo", "ada", "why not", hours(0))


def test_what_was_production_at_any_moment(home: Home) -> None:
    climb(home)
    promotion.rollback(home, "demo", "ada", "it loses", hours(3))
    expected = {0: 1, 0.99: 1, 1: 2, 1.5: 2, 2: 3, 3: 2, 500: 2}
    for hour, number in expected.items():
        assert promotion.was_production(home, "demo", hours(hour)).change.number == number
    tenure = promotion.was_production(home, "demo", hours(2.5))
    assert tenure.until == hours(3)
    assert tenure.judgement is not None
    assert tenure.judgement.report == GOOD
    assert "promote by gate" in str(tenure)
    assert "until 2026-03-03 00:00:00 UTC" in str(tenure)
    assert tenure.evidence.splitlines() == [
        f"  bundle      {tenure.change.bundle_sha256}",
        f"  gate report {GOOD.sha256}",
        f"  dataset     {'d' * 64}",
        f"  commit      {'c' * 40}",
    ]
    assert promotion.was_production(home, "demo", hours(4)).until is None
    with pytest.raises(UnknownVersion, match=r"no Production at .*T20:00.*: the first since"):
        promotion.was_production(home, "demo", hours(-1))
    with pytest.raises(UnknownVersion, match="there was never one"):
        promotion.was_production(home, "nobody", hours(0))


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("survived", range(5))
def test_a_change_survives_a_crash_at_any_point(
    home: Home, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    promotion.install(home, "demo", 1, hours(0))
    judged(home, 2)
    calls = 0

    def until_killed(real: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls > survived:
                raise Killed
            return real(*arguments)

        return step

    # Steps: intent, Production, Previous, tag, confirmation.
    with monkeypatch.context() as patch:
        patch.setattr(promotion.history, "append", until_killed(history.append))
        patch.setattr(promotion.models, "set_alias", until_killed(models.set_alias))
        patch.setattr(promotion.models, "set_tag", until_killed(models.set_tag))
        with pytest.raises(Killed):
            promotion.promote(home, "demo", 2, hours(1))
    moved = survived >= 2
    assert models.alias(home, "demo", "Production") == (2 if moved else 1)
    if moved:
        with pytest.raises(PromotionRefused, match="version 2 is Production already"):
            promotion.promote(home, "demo", 2, hours(2))
        assert promotion.was_production(home, "demo", hours(1.5)).change.number == 2
    else:
        promotion.promote(home, "demo", 2, hours(2))
        assert promotion.was_production(home, "demo", hours(1.5)).change.number == 1
    assert models.aliases(home, "demo") == {"Production": 2, "Previous": 1}
    assert promotion.discrepancies(home, "demo") == []


def test_nothing_changes_while_mlflow_is_away(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    promotion.install(home, "demo", 1, hours(0))
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:1 does not answer"):
            promotion.promote(home, "demo", 2, hours(1), by="ada", reason="a drill")
    assert [change.number for change in promotion.production_history(home, "demo")] == [1]


def test_an_alias_moved_by_hand_is_noticed(home: Home) -> None:
    climb(home)
    models.set_alias(home, "demo", "Production", 4)
    (sentence,) = promotion.discrepancies(home, "demo")
    assert "MLflow says Production is version 4, the ledger says 3" in sentence


def test_a_ledger_that_was_cut_is_noticed(home: Home) -> None:
    climb(home)
    with closing(sqlite3.connect(home.promotions)) as database, database:
        database.execute("DROP TRIGGER entries_no_delete")
        database.execute("DELETE FROM entries WHERE id >= (SELECT max(id) - 1 FROM entries)")
    history.read(home.promotions)  # a chain that ends earlier is still a chain
    assert any("the ledger was cut" in s for s in promotion.discrepancies(home, "demo"))


def rewritten(home: Home, number: int) -> None:
    """Entry ``number`` says something else, and every hash from there on was made anew."""
    with closing(sqlite3.connect(home.promotions)) as database, database:
        database.execute("DROP TRIGGER entries_no_update")
        rows = database.execute("SELECT * FROM entries ORDER BY id").fetchall()
        previous = rows[number - 1][5]
        for one in rows[number - 1 :]:
            row = (*one[:5], previous)
            if one[0] == number:
                row = (*one[:4], one[4].replace('"by": "gate"', '"by": "ada"'), previous)
            previous = hashlib.sha256(json.dumps(row).encode()).hexdigest()
            database.execute(
                "UPDATE entries SET body = ?, previous = ?, hash = ? WHERE id = ?",
                (row[4], row[5], previous, one[0]),
            )
        database.execute(
            "CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries "
            "BEGIN SELECT RAISE(ABORT, 'the promotion ledger is append-only'); END"
        )


def test_a_ledger_written_anew_is_noticed_by_its_newest_hash_and_by_the_versions(
    home: Home,
) -> None:
    climb(home)
    assert promotion.audit(home, ["demo"]) == []
    rewritten(home, 4)
    history.read(home.promotions)  # its chain is whole again
    (replaced, advice) = promotion.audit(home, ["demo"])
    assert "is not the one that was written; it was replaced" in replaced
    assert "restore the ledger from a backup" in advice
    # Even with the file of the newest hash gone: what was promoted holds the hash of its entry.
    home.promotions.with_suffix(".head").unlink()
    (headless, *found) = promotion.audit(home, ["demo"])
    assert "promotions.head: missing" in headless
    assert {one.split(" was promoted")[0] for one in found} == {
        "demo: version 2",
        "demo: version 3",
    }


def test_an_altered_ledger_answers_nothing(home: Home) -> None:
    climb(home)
    with closing(sqlite3.connect(home.promotions)) as database, database:
        database.execute("DROP TRIGGER entries_no_update")
        database.execute("UPDATE entries SET body = replace(body, 'gate', 'me') WHERE id = 4")
    with pytest.raises(CorruptFile, match="breaks at entry 4"):
        promotion.was_production(home, "demo", hours(9))
    with pytest.raises(CorruptFile, match="breaks at entry 4"):
        promotion.rollback(home, "demo", "ada", "why", hours(9))


def test_a_clock_that_went_back_is_refused(home: Home) -> None:
    climb(home)
    with pytest.raises(RegistryError, match="set the clock right"):
        promotion.rollback(home, "demo", "ada", "why", hours(1.5))


def test_two_people_at_once_make_two_changes_one_after_the_other(home: Home) -> None:
    promotion.install(home, "demo", 1, hours(0))
    outcomes: list[object] = []

    def promote(number: int) -> None:
        try:
            outcomes.append(
                promotion.promote(home, "demo", number, hours(1), by=f"p{number}", reason="race")
            )
        except RegistryError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=promote, args=(number,)) for number in (2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    changes = promotion.production_history(home, "demo")
    assert sorted(change.number for change in changes) == [1, 2, 3, 4]
    for before, after in pairwise(changes):
        assert after.replaced == before.number
    assert promotion.discrepancies(home, "demo") == []


def test_the_challenger_becomes_production(home: Home) -> None:
    promotion.install(home, "demo", 1, hours(0))
    promotion.challenge(home, "demo", 2, hours(0.5))
    assert models.alias(home, "demo", "Challenger") == 2
    promotion.promote(home, "demo", 2, hours(1), by="ada", reason="a drill")
    assert models.aliases(home, "demo") == {"Production": 2, "Previous": 1}


def test_the_audit_finds_an_alias_moved_behind_ratchets_back(home: Home) -> None:
    climb(home)
    promotion.challenge(home, "demo", 4, hours(3))
    assert promotion.audit(home, ["demo"]) == []
    entry = history.read(home.promotions, "demo")[-1]
    assert (entry.kind, entry.body["number"], entry.body["dataset_sha256"]) == (
        "challenge",
        4,
        "d" * 64,
    )
    models.set_alias(home, "demo", "Challenger", 2)
    models.set_alias(home, "demo", "Production", 1)
    found = promotion.audit(home, ["demo"])
    assert len(found) == 2
    assert "MLflow says Production is version 1, the ledger says 3" in found[0]
    assert "MLflow says Challenger is version 2, the ledger says 4" in found[1]


def test_every_trial_ever_run_is_counted(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert trials(home, "demo") == trials(home, "other")
    assert trials(home, "demo").count == 0
    record_trials(home, "demo", "study 1", [0.1, None], hours(0))
    record_trials(home, "demo", "study 1", [0.1, None, 0.3], hours(1))  # resumed: the same trials
    record_trials(home, "demo", "study 2", [0.2], hours(2))
    record_trials(home, "other", "study 1", [9.0, 8.0], hours(3))
    assert (trials(home, "demo").count, trials(home, "demo").effective) == (4, 4.0)
    assert trials(home, "demo").sharpe_variance == pytest.approx(0.01)  # of 0.1, 0.3, 0.2


def test_alike_trials_are_counted_by_what_their_study_found_them_worth(tmp_path: Path) -> None:
    home = Home(tmp_path)
    record_trials(home, "demo", "study 1", [0.1, 0.1, 0.1], hours(0), effective=1.5)
    record_trials(home, "demo", "study 2", [0.2, 0.3], hours(1))
    assert (trials(home, "demo").count, trials(home, "demo").effective) == (5, 3.5)


def test_every_earlier_look_at_the_same_bars_is_counted(tmp_path: Path) -> None:
    home = Home(tmp_path)

    def look(run: str, first: float, last: float) -> None:
        record_look(home, "demo", hours(first), hours(last), run, hours(99))

    look("a", 0, 10)
    look("a", 0, 10)
    look("b", 10, 20)
    look("c", 21, 30)
    assert earlier_looks(home, "demo", hours(5), hours(20), "d") == 2
    assert earlier_looks(home, "demo", hours(5), hours(20), "a") == 1
    assert earlier_looks(home, "demo", hours(31), hours(40), "d") == 0
    assert earlier_looks(home, "other", hours(0), hours(40), "d") == 0
