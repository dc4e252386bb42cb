"""Steps: who closes which bar of a step with whom, and what is only history."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np

from serving.history import FeedBar, Instrument
from serving.pairing import Pairing
from serving.steps import Steps

NOW = datetime(2026, 3, 2, tzinfo=UTC)
SOLO, FUND, INDEX = (Instrument("bundled", name, "1d") for name in ("SOLO", "FUND", "INDEX"))


def bar(one: Instrument, day: int) -> FeedBar:
    return FeedBar(one, NOW + timedelta(days=day), (1.0,) * 7)


@dataclass
class Bench:
    """``solo`` looks at what it trades, ``pair`` at another symbol."""

    together: bool = False  # limits lie across the sleeves
    keep_seconds: float = 0.0
    said: list[str] = field(default_factory=list)
    kept: list[list[str]] = field(default_factory=list)

    def sleeve(self, name: str) -> Any:
        def weigh(traded: FeedBar, signal: FeedBar, too_old: str) -> Any:
            assert traded.time == signal.time
            day = (traded.time - NOW).days
            self.said.append(f"{name} {day}{too_old}")
            after = SimpleNamespace(equity=np.array([1.0]))
            return SimpleNamespace(
                session=1, agent=name, time=traded.time, model_version="1", action="hold",
                after=after, ticket=None,
            )  # fmt: skip

        def skip(bar: FeedBar) -> None:
            self.said.append(f"{name} skips {bar.instrument.symbol} {(bar.time - NOW).days}")

        return SimpleNamespace(weigh=weigh, skip=skip)

    def conclude(self, sleeves: Any, weighed: Mapping[str, Any], due: Any) -> Mapping[str, Any]:
        self.said.append("all of it durable")
        self.kept.append(sorted(due))
        return weighed

    def steps(self, since: int = -1) -> Steps:
        pairs = {"solo": Pairing(SOLO, SOLO), "pair": Pairing(FUND, INDEX)}
        seats = {
            name: SimpleNamespace(
                pairing=one, since=NOW + timedelta(days=since), sleeve=self.sleeve(name)
            )
            for name, one in pairs.items()
        }
        feed = SimpleNamespace(too_old=lambda bar: " stale" if bar.time == NOW else "", vix=None)
        floor = SimpleNamespace(
            seats=seats, feed=feed, desk=SimpleNamespace(closed=lambda close: None),
            watch=SimpleNamespace(timed=lambda name, seconds: None),
            log=SimpleNamespace(info=lambda *_, **more: None),
        )  # fmt: skip
        account = SimpleNamespace(
            limits=SimpleNamespace(off=not self.together), conclude=self.conclude
        )
        made: Any = Steps
        steps: Steps = made(
            floor, account, SimpleNamespace(hear=lambda *_: None), self.keep_seconds
        )
        return steps


def test_without_limits_across_them_each_sleeve_s_order_leaves_before_the_next_decides() -> None:
    bench = Bench()
    closed = bench.steps().live([bar(SOLO, 1), bar(FUND, 1), bar(INDEX, 1)])
    assert bench.said == ["solo 1", "all of it durable", "pair 1", "all of it durable"]
    assert closed == {"solo", "pair"}


def test_under_limits_across_them_sleeves_of_a_step_are_weighed_together() -> None:
    bench = Bench(together=True)
    bench.steps().live([bar(SOLO, 1), bar(FUND, 1), bar(INDEX, 1)])
    assert bench.said == ["solo 1", "pair 1", "all of it durable"]


def test_a_bar_without_its_counterpart_is_skipped_after_what_came_before_it() -> None:
    bench = Bench()
    step = [bar(FUND, 1), bar(INDEX, 1), bar(FUND, 2), bar(INDEX, 3), bar(FUND, 3)]
    bench.steps().live(step)
    decided = [one for one in bench.said if one != "all of it durable"]
    assert decided == ["pair 1", "pair skips FUND 2", "pair 3"]


def test_who_did_not_close_and_what_was_lived_through_already() -> None:
    bench = Bench()
    steps = bench.steps(since=1)
    assert steps.live([bar(SOLO, 1)]) == set(), "a restart has lived through it"
    assert steps.live([bar(SOLO, 2), bar(FUND, 2)]) == {"solo"}, "the other symbol is to come"
    assert steps.live([bar(INDEX, 2)]) == {"pair"}
    assert [one for one in bench.said if one[-1].isdigit()] == ["solo 2", "pair 2"]


def test_several_bars_of_one_sleeve_are_closed_one_after_the_other() -> None:
    bench = Bench(together=True)
    bench.steps().live([bar(SOLO, 0), bar(SOLO, 1), bar(FUND, 0), bar(INDEX, 0)])
    durable = "all of it durable"
    assert bench.said == ["solo 0 stale", "pair 0 stale", durable, "solo 1", durable]


def test_a_snapshot_is_kept_at_first_and_then_no_sooner_than_it_is_due() -> None:
    bench = Bench(keep_seconds=3_600.0)
    steps = bench.steps()
    for day in range(3):
        steps.live([bar(SOLO, day)])
    assert bench.kept == [["solo"], [], []]
    often = Bench()
    steps = often.steps()
    for day in range(3):
        steps.live([bar(SOLO, day)])
    assert often.kept == [["solo"]] * 3
