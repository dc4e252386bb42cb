"""The verdict on memory: numbers worked out by hand."""

from bench.weighing import BOUND, LEAST, Weight, is_flat, picture, slope, verdict


def weights(*worker: float) -> list[Weight]:
    return [Weight(400 * place, mib, 1_000, 100.0) for place, mib in enumerate(worker)]


def test_memory_that_grows_by_a_mebibyte_a_session_of_400_bars_is_not_flat() -> None:
    grown = weights(*(300.0 + place for place in range(12)))
    assert abs((slope(grown) or 0.0) - 2.5) < 1e-9
    assert not is_flat(grown)
    assert "NOT FLAT" in verdict(grown)
    assert "+2.50 MiB a thousand bars" in verdict(grown)


def test_a_warm_up_of_a_quarter_does_not_count() -> None:
    warmed = weights(270.0, 290.0, 299.0, *[300.0] * 9)
    assert abs(slope(warmed) or 0.0) < 1e-9
    assert is_flat(warmed)
    assert "memory: flat" in verdict(warmed)


def test_growth_just_beyond_the_bound_is_told() -> None:
    for step, flat in ((0.99, True), (1.01, False)):
        grown = weights(*(300.0 + 0.4 * step * BOUND * place for place in range(12)))
        assert is_flat(grown) is flat


def test_few_sessions_give_no_verdict() -> None:
    few = weights(300.0, 310.0, *(320.0 + 10.0 * place for place in range(LEAST - 1)))
    assert slope(few) is None
    assert is_flat(few)
    assert f"a verdict needs {LEAST}" in verdict(few)


def test_the_picture_begins_at_zero() -> None:
    lines = picture(weights(100.0, 200.0))
    assert [line.count("#") for line in lines[1:]] == [20, 40]
