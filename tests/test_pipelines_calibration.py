"""The calibration runs the real pipeline, keeps what it has, and counts what came out."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from registry_kit import QUICK, strong

from core.errors import ConfigError, CorruptFile, RegistryError
from core.home import PROJECT, Home
from core.progress import Progress
from core.settings import Params, load_params
from pipelines import calibration, calibration_page
from pipelines.calibration import Result, first_bars, found_after, histories, settings
from pipelines.edges import SHARPES
from pipelines.histories import History
from registry.evidence import Stress

WANTED = [History("bootstrapped", 1), History("trending", 0, 3.0)]


def quick() -> Params:
    """The settings of the calibration with a tenth of the work."""
    params = settings(load_params(PROJECT / "params.yaml"))
    size = params.search.sizes[calibration.SIZE].model_copy(update={"trials": 2, "seeds": 2})
    search = params.search.model_copy(update={"sizes": {calibration.SIZE: size}})
    ppo = params.ppo.model_copy(update={"steps": 16_384})
    return params.model_copy(update={"search": search, "ppo": ppo})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, list[Result]]]:
    home = Home(tmp_path_factory.mktemp("calibrated"))
    yield home, list(calibration.run(home, quick(), WANTED, lambda progress: None))
    ray.shutdown()


def by_name(results: list[Result]) -> dict[str, Result]:
    return {result.history.name: result for result in results}


def test_verdict_and_registry_agree_on_every_history(run: tuple[Home, list[Result]]) -> None:
    results = by_name(run[1])
    assert set(results) == {"bootstrapped-001", "trending-3-000"}
    for result in results.values():
        assert result.promoted == (result.verdict == "promote")
        assert result.promoted == (not result.failed)
        assert result.seconds > 0.0
    assert not results["bootstrapped-001"].promoted
    assert results["bootstrapped-001"].found_after_bars is None


def test_a_second_run_takes_the_results_it_finds(run: tuple[Home, list[Result]]) -> None:
    home, results = run
    heard: list[Progress] = []
    again = list(calibration.run(home, quick(), WANTED, heard.append))
    assert by_name(again) == by_name(results)
    assert heard == []  # nothing was left to do


def test_other_settings_are_other_results(run: tuple[Home, list[Result]]) -> None:
    home = run[0]
    other = quick().model_copy(update={"gate": quick().gate.model_copy(update={"seed": 1})})
    assert calibration.folder_of(home, other) != calibration.folder_of(home, quick())


@pytest.mark.parametrize(
    ("false", "found", "said"),
    [
        (0, 4, ""),
        (2, 1, ""),  # of 10 and of 4: a gate of 5 % and 80 % may do so
        (4, 4, "4 of 10 markets without an edge were promoted"),
        (0, 0, "0 of 4 planted edges of 2 and more that no baseline has were found"),
    ],
)
def test_rates_that_contradict_the_promise_are_an_error(false: int, found: int, said: str) -> None:
    markets = [(History("bootstrapped", n), n < false) for n in range(10)]
    markets += [(History("swinging", n, 1.5), False) for n in range(9)]
    markets += [(History("trending", n, 3.0), False) for n in range(9)]  # a baseline has that edge
    markets += [(History("reverting", n, 2.0), n < found) for n in range(4)]
    results = [
        Result(one, "", promoted, (), 0.0, 0.0, "flat", 0.0, None, 0.0) for one, promoted in markets
    ]
    with pytest.raises(RegistryError, match=said) if said else contextlib.nullcontext():
        calibration.require_calibrated(results)


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "trending-2-000.json"
    damaged.write_text('{"history": {}}')
    with pytest.raises(CorruptFile, match=r"trending-2-000\.json: is no result of a history"):
        calibration.read(damaged)


def test_half_of_the_markets_without_edge_are_of_either_kind() -> None:
    made = histories(5, 2)
    assert [one.kind for one in made[:5]] == ["bootstrapped"] * 3 + ["randomised"] * 2
    for kind in ("swinging", "reverting"):
        assert [one.edge for one in made if one.kind == kind][::2] == list(SHARPES)
    assert len({one.name for one in made}) == len(made) == 35
    more = [one for one in histories(5, 2, 4) if one not in made]
    assert [(one.kind, one.edge) for one in more] == [
        (kind, 2.0) for kind in ("trending", "swinging", "reverting") for _ in range(2)
    ]
    assert min(one.number for one in made) == calibration.FIRST  # none that chose a threshold


def test_an_edge_is_found_once_enough_bars_show_it() -> None:
    params = quick().model_copy(update={"gate": QUICK})
    found = found_after(strong(), params)
    assert found is not None
    assert found % calibration.QUARTER_BARS == 0
    assert found >= QUICK.min_holdout_bars
    flat = strong()
    idle = replace(flat, candidate=np.zeros(470), seeds=np.zeros((3, 470)))
    assert found_after(idle, params) is None


def test_the_first_bars_of_evidence_hold_nothing_of_the_later_ones() -> None:
    good = strong().candidate
    stress = Stress({1: good, 2: good}, good, {1: good, 10: np.append(good[:300], -good[300:])}, 0)
    later = np.where(np.arange(470) < 250, good, -good)
    whole = replace(strong(), stress=stress, market=good)
    other = replace(
        strong(),
        candidate=np.where(np.arange(470) < 250, whole.candidate, -whole.candidate),
        stress=replace(stress, delayed=later),
        market=later,
    )
    first, second = first_bars(whole, 250), first_bars(other, 250)
    assert (first.candidate == second.candidate).all()
    assert first.seeds.shape == (3, 250)
    assert all(len(returns) == 250 for returns in first.baselines.values())
    for one in (first.stress, second.stress):
        assert one is not None
        assert len(one.costs[2]) == len(one.delayed) == 250
        assert one.capacity == 10.0  # the capital's later losses are not known yet
    assert (first.market == second.market).all()


def result(edge: float, number: int, promoted: bool, after: int | None = None) -> Result:
    kind = "reverting" if edge else "randomised"
    failed = () if promoted else ("deflated", "difference")
    verdict = "promote" if promoted else "refuse"
    return Result(
        History(kind, number, edge), verdict, promoted, failed, 1.0 + number, 0.5,
        "ma_crossover", 0.75, after, 36.0,
    )  # fmt: skip


RESULTS = [
    result(0.0, 0, False),
    result(0.0, 1, True),
    *(result(2.0, n, n < 3, 210 * (n + 1) if n < 3 else None) for n in range(4)),
]


def test_the_page_counts_what_the_results_say() -> None:
    page = calibration_page.outcome(RESULTS, "c" * 40)
    assert "6 histories at commit `cccccccccccc`, 0.1 processor hours." in page
    assert "| **no edge, together** | 1 of 2 | 1.3% to 98.7% | 1.50 | 0.50 | 0.75 |  |" in page
    # Of 210, 420, 630 and never the median is 420 bars: 20 months.
    assert (
        "| planted, reverting, 2 | 3 of 4 | 19.4% to 99.4% | 2.50 | 0.50 | 0.75 | 20 months |"
        in page
    )
    assert "deflated 50%, difference 50%" in page


def test_every_kind_of_edge_has_a_curve_that_begins_without_edge() -> None:
    curve = calibration_page.curves([*RESULTS, replace(RESULTS[0], verdict="refuse")])["reverting"]
    assert [(point.edge, point.share) for point in curve] == [(0.0, 0.5), (2.0, 0.75)]


def test_an_edge_mostly_missed_has_no_median_month() -> None:
    missed = [result(1.0, n, False) for n in range(3)]
    assert "more than half: never" in calibration_page.outcome(missed, "c" * 40)


def test_results_replace_results_and_leave_the_words(tmp_path: Path) -> None:
    page = tmp_path / "evidence.md"
    begin, end = calibration_page.BEGIN, calibration_page.END
    page.write_text(f"# Method\n{begin}\nold\n{end}\nLimits\n")
    calibration_page.write(page, "new\n", RESULTS)
    calibration_page.write(page, "newer\n", RESULTS)
    text = page.read_text()
    assert "old" not in text
    assert text.startswith(f"# Method\n{begin}\nnewer\n")
    assert text.endswith(f"{end}\nLimits\n")
    assert (tmp_path / "evidence-power.svg").read_bytes().startswith(b"<?xml")


def test_a_page_without_a_place_for_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.md: cannot take the results"):
        calibration_page.write(tmp_path / "absent.md", "", RESULTS)
