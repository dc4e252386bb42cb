"""Placing: a training with actors takes its processors all at once, or waits until it can.

Owns Ray's placement groups: made before a training's task, gone after it. Two trainings that each
hold a part of what they need would wait for each other for ever.
"""

from collections.abc import Sequence
from typing import Any

from core.errors import ConfigError
from training.lesson import Lesson


class Rooms:
    """The processors of trainings, by the place of each in a list of lessons."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        """Ask Ray for them; raise ``ConfigError`` where it has too few in all."""
        import ray

        processors = [needed(lesson) for lesson in lessons]
        most = max(processors, default=1)
        there = int(ray.cluster_resources().get("CPU", 0))
        if most > max(1, there):
            raise ConfigError(
                f"training.runners and training.learners make a training of {most} processors, "
                f"Ray has {there}: lower them, or set RAY_ADDRESS to a larger cluster"
            )
        self._groups: dict[int, Any] = {
            place: ray.util.placement_group([{"CPU": 1}] * count)
            for place, count in enumerate(processors)
            if count > 1
        }

    def options(self, place: int) -> dict[str, Any]:
        """Return the options of the task of one training; its actors are placed with it."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        if place not in self._groups:
            return {}
        strategy = PlacementGroupSchedulingStrategy(
            self._groups[place],
            placement_group_bundle_index=0,
            placement_group_capture_child_tasks=True,
        )
        return {"scheduling_strategy": strategy}

    def free(self, place: int) -> None:
        """Give the processors of one training back."""
        import ray

        if group := self._groups.pop(place, None):
            ray.util.remove_placement_group(group)

    def free_all(self) -> None:
        """Give back what is left."""
        for place in list(self._groups):
            self.free(place)


def needed(lesson: Any) -> int:
    """Return the processors of a lesson; one where whoever trains takes lessons of its own kind."""
    return lesson.processors if isinstance(lesson, Lesson) else 1
