"""What a retraining writes down of its learning curves."""

from collections.abc import Mapping, Sequence
from typing import cast

from pipelines.record import log_curve
from registry.tracking import Run


class Heard:
    """A run that only listens."""

    def __init__(self) -> None:
        self.calls: list[tuple[Mapping[str, Sequence[float]], Sequence[int] | None]] = []

    def log_curves(
        self, curves: Mapping[str, Sequence[float]], steps: Sequence[int] | None = None
    ) -> None:
        self.calls.append((curves, steps))


def test_a_curve_is_one_call_and_a_figure_that_a_report_lacks_another() -> None:
    curve = [
        {"steps": 100.0, "validation_score": 0.5, "kl": 0.01},
        {"steps": 200.0, "validation_score": 0.7, "kl": 0.02, "alpha": 0.3},
    ]
    heard = Heard()
    log_curve(cast(Run, heard), curve)
    assert [(dict(curves), steps) for curves, steps in heard.calls] == [
        ({"validation_score": [0.5, 0.7], "kl": [0.01, 0.02]}, (100, 200)),
        ({"alpha": [0.3]}, (200,)),
    ]
