"""Policies: what a graph may answer, number by number, and what it may not."""

from collections.abc import Sequence

import numpy as np
import pytest

from core.errors import BadBundle
from registry.policy import Decision, Policy

INFINITE, UNKNOWN, LARGEST = float("inf"), float("nan"), 3e38  # the last nearly fills a float32
Answer = tuple[float, float, float]  # weight, score, confidence


class Graph:
    """Stands where ONNX Runtime does: the same answers, whatever is asked."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._columns = np.array(answers, np.float32).T

    def run(self, names: Sequence[str], given: object) -> list[np.ndarray]:
        weight, score, confidence = self._columns
        return [weight[:, None], score[:, None], confidence]


def decided(*answers: Answer) -> Decision:
    """Return the decision of a graph that gives these answers, one a row."""
    policy = Policy("p", 4, 1, Graph(answers), {len(answers): True})
    return policy.decide(np.zeros((len(answers), 4), np.float32))


@pytest.mark.parametrize(
    "wrong",
    [
        (INFINITE, 0.5, 0.9),
        (-INFINITE, 0.5, 0.9),
        (1.0, INFINITE, 0.9),
        (1.0, -INFINITE, 0.9),
        (1.0, UNKNOWN, 0.9),
        (1.0, 0.5, UNKNOWN),
        (1.0, 0.5, INFINITE),
        (1.0, 0.5, 1.00001),
        (1.0, 0.5, -0.00001),
    ],
)
def test_one_wrong_number_among_many_rows_is_refused(wrong: Answer) -> None:
    with pytest.raises(BadBundle, match=r"p: answers weight .*, score .*, confidence "):
        decided((1.0, 0.5, 0.9), wrong, (0.0, -0.5, 0.8))


def test_a_hold_and_a_large_score_pass() -> None:
    decision = decided((UNKNOWN, LARGEST, 0.0), (1.0, -LARGEST, 1.0), (0.5, 0.0, 0.25))
    assert decision.weight.dtype == decision.score.dtype == decision.confidence.dtype == np.float64
    np.testing.assert_array_equal(decision.weight[:, 0], [UNKNOWN, 1.0, 0.5])
    np.testing.assert_array_equal(decision.score[:, 0], np.float32([LARGEST, -LARGEST, 0.0]))
    assert decision.confidence.tolist() == [0.0, 1.0, 0.25]


@pytest.mark.parametrize(("rounded", "exact"), [(1.0000005, 1.0), (-0.0000005, 0.0)])
def test_the_rounding_of_a_confidence_is_taken_off(rounded: float, exact: float) -> None:
    assert decided((1.0, 0.5, rounded), (1.0, 0.5, 0.25)).confidence.tolist() == [exact, 0.25]
