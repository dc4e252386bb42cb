"""Trials of an agent: all studies count, a resumed one once, a deleted one for ever."""

from datetime import UTC, datetime

import pytest
from study_kit import climb, plan

from core.home import Home
from pipelines import trials
from registry import attempts
from training import workers
from training.studies import library, storage
from training.study import Plan, Searched, Trial, close_study, search
from training.tried import studies_of

NOW = datetime(2024, 3, 2, 21, tzinfo=UTC)
DAY = 86_400


class Killed(Exception):
    """What ends a study in the middle here."""


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in this process: without Ray."""
    monkeypatch.setattr(workers, "_here", True)


def planned(identity: str, count: int = 4, first_day: int = 0, seed: int = 1) -> Plan:
    """Return a plan whose returns, forty bars, lie on the hundred days from ``first_day`` on."""
    made = plan(count, identity * 64, seed)
    times = tuple((first_day + n) * DAY for n in range(100))
    return Plan(made.agent, made.identity, count, made.space, made.settings, seed, times, 252.0)


def run(home: Home, wanted: Plan, stop_after: int | None = None) -> Searched:
    """Search as a retraining does: what is gone is skipped, every trial counted as it is told."""
    ever = trials.count(home, "demo", NOW)
    wanted = Plan(
        *(getattr(wanted, name) for name in Plan.__slots__ if name != "lost"), trials.lost(ever)
    )
    counter = trials.counter(home, wanted, ever, NOW)

    def listen(trial: Trial) -> None:
        counter.hear(trial)
        if stop_after is not None and trial.number + 1 == stop_after:
            raise Killed

    searched = search(home, wanted, dict, listen=listen, train=climb)  # type: ignore[arg-type]
    counter.end(searched.effective_trials)
    return searched


def test_a_second_study_raises_the_count(home: Home) -> None:
    run(home, planned("a"))
    run(home, planned("b", seed=2))
    ever = trials.count(home, "demo", NOW)
    assert [study.trials for study in ever.studies] == [4, 4]
    assert ever.count == 8


def test_a_study_that_was_killed_and_resumed_counts_once(home: Home) -> None:
    with pytest.raises(Killed):
        run(home, planned("a"), stop_after=3)
    assert trials.count(home, "demo", NOW).count == 3  # never judged, and counted
    run(home, planned("a"))
    ever = trials.count(home, "demo", NOW)
    assert (ever.count, len(ever.studies)) == (4, 1)
    assert attempts.trials(home, "demo").count == 4


def test_a_deleted_study_goes_on_counting_and_its_name_is_not_used_again(home: Home) -> None:
    first = run(home, planned("a"))
    before = trials.count(home, "demo", NOW)
    library().delete_study(study_name=first.study, storage=storage(home))
    ever = trials.count(home, "demo", NOW)
    assert (ever.count, ever.effective) == (before.count, before.effective)
    assert "4 of them gone from the study database" in str(ever)
    # Other trials under the old name would take the place of the old ones.
    second = run(home, planned("a", seed=5))
    assert second.study != first.study
    assert trials.count(home, "demo", NOW).count == 8


def test_a_study_deleted_before_anybody_counted_it_is_missed_all_the_same(home: Home) -> None:
    with pytest.raises(Killed):
        run(home, planned("a"), stop_after=2)
    home.studies.unlink()
    assert trials.count(home, "demo", NOW).count == 2


def test_a_database_that_another_home_wrote_to_is_told_to_the_ledger(home: Home) -> None:
    wanted = planned("a")
    searched = search(home, wanted, dict, train=climb)  # type: ignore[arg-type]
    assert attempts.trials(home, "demo").count == 0
    assert trials.count(home, "demo", NOW).count == 4
    recorded = attempts.recorded(home, "demo")[searched.study]
    assert recorded.sharpes[0] == pytest.approx((searched.trials[0].score or 0.0) / 252**0.5)
    trials.count(home, "demo", NOW)
    assert attempts.trials(home, "demo").count == 4


def test_trials_on_too_few_bars_to_compare_count_again(home: Home) -> None:
    first = run(home, planned("a"))
    alone = trials.count(home, "demo", NOW).effective
    close_study(home, first.study)
    run(home, planned("a"))
    ever = trials.count(home, "demo", NOW)
    assert ever.count == 8
    assert ever.effective == pytest.approx(2 * alone)  # of forty bars nothing can be said


def test_times_are_kept_with_the_returns_they_belong_to(home: Home) -> None:
    run(home, planned("a", first_day=7))
    study = studies_of(home, "demo")[0]
    assert study.series.times is not None
    assert study.series.times.tolist() == [(7 + n) * DAY for n in range(40)]
    assert study.series.returns.shape == (len(study.series.returns), 40)


def test_rebuilding_a_version_looks_for_nothing(home: Home) -> None:
    wanted = planned("a")
    again = Plan("demo reproduced", *(getattr(wanted, name) for name in Plan.__slots__[1:]))
    search(home, again, dict, train=climb)  # type: ignore[arg-type]
    assert trials.count(home, "demo", NOW).count == 0
