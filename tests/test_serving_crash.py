"""A worker that is killed with SIGKILL at every boundary between ledger and broker.

The whole of it is ``make crash``; here every boundary once, a few kills at random or while it
recovers, and two planted bugs that killing must find.
"""

from collections import Counter
from collections.abc import Iterator

import pytest
from crash.plan import draw, once_each, recoveries
from crash.runs import Bench, Kill, Outcome, Task, Verdict, judge

SEED = "suite"
DRAWN = 20
SECONDS = 0.4  # about what an uninterrupted process takes


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench


@pytest.fixture(scope="module")
def reference(bench: Bench) -> Outcome:
    outcome = bench.run(Task())
    assert outcome.wrong == ()
    assert Counter(leg for leg, *_ in outcome.fills) == {"entry": 5, "stop": 1, "target": 1}
    return outcome


def bad(verdicts: dict[Task, Verdict]) -> dict[Task, Verdict]:
    return {task: verdict for task, verdict in verdicts.items() if not verdict.clean}


def test_a_kill_at_any_boundary_loses_doubles_and_confuses_nothing(
    bench: Bench, reference: Outcome
) -> None:
    tasks = once_each(reference, SEED)
    outcomes = [bench.run(task) for task in tasks]
    assert len(tasks) >= 40
    assert [one.struck for one in outcomes] == [(task.kills[0].boundary,) for task in tasks]
    assert not bad({t: judge(o, reference) for t, o in zip(tasks, outcomes, strict=True)})

    again, counts = recoveries(tasks, outcomes), Counter(reference.crossings[0])
    assert len(again) >= 30, "boundaries of a recovery at which the next are killed"
    drawn = [draw(number, SEED, counts, again, SECONDS) for number in range(DRAWN)]
    found = {task: judge(bench.run(task), reference, task.market_goes_on) for task in drawn}
    assert not bad(found)


@pytest.mark.parametrize(
    ("planted", "boundary"),
    [
        ("intent after sending", "after an order left"),
        ("resend", "before the commit of the word on an order"),
    ],
)
def test_a_planted_bug_is_found_by_killing(
    planted: str, boundary: str, bench: Bench, reference: Outcome
) -> None:
    task = Task((Kill(boundary, 1),), planted=planted)
    assert not judge(bench.run(task), reference).clean_but_for_blind_orders
    sound = Task((Kill(boundary, 1),))
    assert judge(bench.run(sound), reference).clean
