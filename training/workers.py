"""Workers: trainings side by side, each a Ray task with one process and one thread.

Owns Ray: where it runs, how it starts and that it ends. ``RAY_ADDRESS`` names a cluster; without
it Ray runs on this machine, privately to one home. Started once per process, the workers (whose
imports take seconds) are used again by every trial, seed and fold. Knows nothing of studies.
"""

import atexit
import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from core import telemetry
from core.errors import RatchetError, TrainingError
from core.home import Home
from core.masking import confidential, discreetly, masked
from features.account import warm_up
from training.lesson import Lesson, Metrics, Trained
from training.placing import Rooms, needed

OBJECT_STORE_BYTES = 256 * 1024**2  # lessons and policies are small
LOSSES = 3  # of the worker or its whole node, after which a training begins anew elsewhere
ENDING_SECONDS = 2.0  # for tasks that are about to end by themselves
START_ATTEMPTS = 3  # Ray gives itself 30 seconds, which a busy machine may exceed
LONGEST_TEMP = 24  # characters: Ray's sockets lie 80 deeper, and a socket's path ends at 107

T = TypeVar("T")
R = TypeVar("R")
Train = Callable[[Lesson, Callable[[int, Metrics], None]], Trained]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one training ended."""

    curve: tuple[Metrics, ...]  # one entry per report it reached
    trained: Trained | None  # None: pruned or failed
    problem: str = ""  # why it failed

    @property
    def state(self) -> str:
        """Return complete, pruned or failed."""
        if self.trained is not None:
            return "complete"
        return "failed" if self.problem else "pruned"


Done = Callable[[int, Outcome], None]


def ignore(index: int, outcome: Outcome) -> None:
    """Listen to nothing."""


def learn(
    lesson: Lesson, report: Callable[[int, Metrics], None], checkpoints: Path | None = None
) -> Trained:
    """Train a lesson; torch and RLlib are imported in the worker, and nowhere else."""
    from training.learn import train

    return train(lesson, report, checkpoints)


class _BelowFloor(Exception):
    """Ends a training that is not worth finishing."""


def train_all(
    home: Home,
    lessons: Sequence[Lesson],
    floors: Sequence[float] = (),
    done: Done = ignore,
    train: Train | None = None,
) -> list[Outcome]:
    """Train all ``lessons`` in parallel and return their outcomes, in order.

    ``floors``: one per report; a training whose best validation score so far is below the floor
    ends there and counts as pruned. ``done`` is told each outcome as it comes. Whatever a lesson
    is wrong about for every trial alike (an unknown reward …) is raised. ``train``: what stands in
    for ``learn``, which keeps checkpoints in ``home``.
    """
    train = train or partial(learn, checkpoints=home.checkpoints)
    if _here:
        if any(needed(lesson) > 1 for lesson in lessons):
            start(home)
        return _train_here(lessons, floors, done, train)
    import ray

    start(home)
    rooms = Rooms(lessons)
    # An actor that was lost is an error in the training that had it, unlike a lost training.
    lost = [ray.exceptions.RayActorError]
    task = ray.remote(num_cpus=1, max_retries=LOSSES, retry_exceptions=lost)(discreetly(_train_one))
    running = {
        task.options(**rooms.options(place)).remote(lesson, tuple(floors), train): place
        for place, lesson in enumerate(lessons)
    }
    outcomes: dict[int, Outcome] = {}
    try:
        while running:
            finished, _ = ray.wait(list(running), num_returns=1)
            index = running.pop(finished[0])
            rooms.free(index)
            outcomes[index] = _outcome(finished[0])
            done(index, outcomes[index])
    finally:
        _abandon(list(running))  # the caller was interrupted, or a lesson is unusable
        rooms.free_all()
    return [outcomes[index] for index in range(len(lessons))]


def each(home: Home, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Do ``work`` on every item, one Ray task with one thread each; yield results as they come.

    What one of them raises is raised; the others end.
    """
    import ray

    start(home)

    def one(item: T) -> R:  # Ray takes plain functions only
        return work(item)

    task = ray.remote(num_cpus=1, max_retries=LOSSES)(discreetly(one))
    running = [task.remote(item) for item in items]
    try:
        while running:
            finished, running = ray.wait(running, num_returns=1)
            try:
                yield ray.get(finished[0])
            except ray.exceptions.RayTaskError as error:
                raise (getattr(error, "cause", None) or error) from error
    finally:
        _abandon(running)


def _abandon(running: list[Any]) -> None:
    """Cancel what has not ended after a moment.

    Ray ends the whole process when a task ends just as it is cancelled ("Tried to complete task
    that was not pending"); where one of several alike has failed, the others are about to.
    """
    import ray

    if running:
        _, left = ray.wait(running, num_returns=len(running), timeout=ENDING_SECONDS)
        for reference in left:
            ray.cancel(reference, force=True)


def train_here() -> None:
    """Train in this process from now on, lesson after lesson: it is itself one worker of many."""
    global _here
    _here = True


_here = False


def _train_here(
    lessons: Sequence[Lesson], floors: Sequence[float], done: Done, train: Train
) -> list[Outcome]:
    outcomes = []
    for index, lesson in enumerate(lessons):
        try:
            outcome = _train_one(lesson, tuple(floors), train)
        except TrainingError as error:
            outcome = Outcome((), None, _said(str(error)))
        outcomes.append(outcome)
        done(index, outcome)
    return outcomes


def require_trained(outcomes: Sequence[Outcome], what: str) -> list[Trained]:
    """Return the trainings; raise ``TrainingError`` naming the first that failed."""
    trained = []
    for number, outcome in enumerate(outcomes):
        if outcome.trained is None:
            raise TrainingError(f"{what} {number} of {len(outcomes)}: {outcome.problem}")
        trained.append(outcome.trained)
    return trained


def _train_one(lesson: Lesson, floors: tuple[float, ...], train: Train) -> Outcome:
    """Run in a worker: train, stopping below a floor."""
    curve: list[Metrics] = []
    best = float("-inf")

    def report(steps: int, metrics: Metrics) -> None:
        nonlocal best
        curve.append(metrics)
        best = max(best, metrics["validation_score"])
        reached = len(curve)
        if reached <= len(floors) and best < floors[reached - 1]:
            raise _BelowFloor

    try:
        trained = train(lesson, report)
        return Outcome(tuple(curve), trained)
    except _BelowFloor:
        return Outcome(tuple(curve), None)


def _outcome(reference: Any) -> Outcome:
    import ray

    try:
        return ray.get(reference)  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, RatchetError) and not isinstance(cause, TrainingError):
            raise cause from error
        lines = str(cause if cause is not None else error).strip().splitlines()
        return Outcome((), None, _said((lines or [type(error).__name__])[-1]))
    except ray.exceptions.RayError as error:  # the worker died: memory, a kill
        lines = str(error).strip().splitlines()
        return Outcome((), None, _said((lines or [type(error).__name__])[0]))


def _said(problem: str) -> str:
    """Return why a training failed: it goes to the study, the verdict and people."""
    return masked(problem, confidential(os.environ))[:300]


_starting = threading.Lock()


def start(home: Home) -> None:
    """Start Ray for ``home``, or join the cluster of RAY_ADDRESS; nothing when it runs already.

    Ray's servers die with the *thread* that launched them (Linux sends the parent-death signal by
    thread), so that is one which lives as long as this process, whoever calls.
    """
    telemetry.switch_off()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future; it warns
    if os.environ.get("RAY_ADDRESS", "").strip() and _has_token():
        # A cluster may ask for a token, and who joins must have said so before Ray is imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    problems: list[TrainingError] = []
    begun, never = threading.Event(), threading.Event()

    def keep() -> None:
        try:
            _connect(home)
        except TrainingError as problem:
            problems.append(problem)
            never.set()
        finally:
            begun.set()
        never.wait()

    with _starting:
        if ray.is_initialized():
            return
        threading.Thread(target=keep, name="ray keeper", daemon=True).start()
        begun.wait()
    if problems:
        raise problems[0]


def _connect(home: Home) -> None:
    import ray

    address = os.environ.get("RAY_ADDRESS", "").strip()
    if address:
        remedy = "correct RAY_ADDRESS; a cluster's token goes into RAY_AUTH_TOKEN"
        _init(f"the cluster at {address}", remedy, attempts=1, address=address)
        return
    _init(
        "this machine",
        "free memory and processors",
        attempts=START_ATTEMPTS,
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(temp_folder(home)),
    )
    node: Any = ray._private.worker._global_node
    atexit.register(_end, Path(node.get_session_dir_path()))


def _has_token() -> bool:
    """Whether there is a token where Ray looks for one."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").exists()


def warm(home: Home) -> threading.Thread:
    """Start Ray, and let its workers load what they need, beside whatever the caller does next.

    Saves the seconds in which a retraining reads its data. A start that fails is left for
    ``train_all`` to repeat and to report.
    """

    def begin() -> None:
        if _here:
            return
        warm_up()  # compiles the engine once, before several processes would
        with suppress(TrainingError):
            start(home)
            import ray

            task = ray.remote(num_cpus=1, max_retries=0)(_import_learners)
            for _ in range(int(ray.cluster_resources().get("CPU", 1))):
                task.remote()

    # Not a daemon: a process that ends early waits for the start, so that it can end Ray, too.
    thread = threading.Thread(target=begin, name="ray warm-up")
    thread.start()
    return thread


def _import_learners() -> None:
    import training.learn  # noqa: F401

    warm_up()


def _init(where: str, remedy: str, attempts: int, **options: Any) -> None:
    import ray

    for attempt in range(1, attempts + 1):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
            return
        except Exception as error:  # Ray's start-up raises plain exceptions
            ray.shutdown()
            if attempt == attempts:
                raise TrainingError(f"Ray on {where} did not start ({error}); {remedy}") from error


def temp_folder(home: Home) -> Path:
    """Return Ray's own folder for one home: short, because sockets lie in it."""
    name = hashlib.sha256(str(home.root).encode()).hexdigest()[:8]
    base = tempfile.gettempdir()
    if len(base) > LONGEST_TEMP:
        base = "/tmp"
    return Path(base) / f"ratchet-{os.getuid()}-{name}"


def _end(session: Path) -> None:
    import ray

    ray.shutdown()
    shutil.rmtree(session, ignore_errors=True)  # sockets and logs of workers that are gone
