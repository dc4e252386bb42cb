"""Progress as people see it: bars or lines on a terminal, artifacts and logs in a Prefect run.

Owns the showing, not the work. A listener that fails must never end a training, so trouble with
Prefect's API is logged and the work goes on.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import replace
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from core.masking import confidential, masked
from core.progress import Progress, Report, silent

# Who else listens to the flow that runs in this process: a flow's own parameters must be plain
# data, so the terminal cannot be one of them.
_listener: ContextVar[Report] = ContextVar("listener", default=silent)


@contextlib.contextmanager
def listening(report: Report) -> Iterator[None]:
    """Tell ``report`` about the progress of every flow run in this block."""
    token = _listener.set(report)
    try:
        yield
    finally:
        _listener.reset(token)


def heard_by(first: Report) -> Report:
    """Return a report that tells ``first`` and whoever listens in this context."""
    second = _listener.get()

    def both(progress: Progress) -> None:
        first(progress)
        second(progress)

    return both


class RunProgress:
    """Shows progress in the Prefect run: one progress artifact per stage, and the run's log."""

    def __init__(self, key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = key
        self._clock = clock
        self._artifacts: dict[str, UUID] = {}
        self._last_told: dict[str, float] = {}

    def __call__(self, progress: Progress) -> None:
        finished = progress.done >= 1.0
        last = self._last_told.get(progress.stage)
        if not finished and last is not None and self._clock() - last < 1.0:
            return  # each call is a request to the server; once a second is enough for eyes
        self._last_told[progress.stage] = self._clock()
        self._tell(progress)

    def _tell(self, progress: Progress) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact
        from prefect.logging import get_run_logger

        logger, text = get_run_logger(), masked(progress.text, confidential(os.environ))
        logger.info("%s %3.0f %%  %s", progress.stage, 100 * progress.done, text)
        percent = 100.0 * min(max(progress.done, 0.0), 1.0)
        try:
            known = self._artifacts.get(progress.stage)
            if known is None:
                made = create_progress_artifact(
                    percent, key=slug(f"{self._key}-{progress.stage}"), description=text
                )
                self._artifacts[progress.stage] = made  # type: ignore[assignment]
            else:
                update_progress_artifact(known, percent, description=text)
        except Exception as error:  # noqa: BLE001 - whatever the API throws, training goes on
            logger.warning("progress was not stored in Prefect: %s", error)


class Terminal:
    """Shows progress on a terminal: a bar per stage at work, a line per stage done.

    Where there is no terminal (a pipe, a log), a line each time the words change. May be told from
    several threads.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._began: dict[str, float] = {}
        self._said: dict[str, str] = {}
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()
        self._bars = Bars(
            TextColumn("  {task.description:<20}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Terminal":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def of(self, prefix: str) -> Report:
        """Return a report whose stages are named after ``prefix`` here."""
        return lambda told: self(Progress(f"{prefix} {told.stage}", told.done, told.text))

    def __call__(self, progress: Progress) -> None:
        progress = replace(progress, text=masked(progress.text, confidential(os.environ)))
        with self._lock:
            if progress.stage not in self._began and progress.done < 1.0:
                self._began[progress.stage] = self._clock()
            if progress.done >= 1.0:
                self._finish(progress)
            elif self._console.is_terminal:
                self._move(progress)
            elif self._said.get(progress.stage) != progress.text:
                self._said[progress.stage] = progress.text
                self._line("…", progress)

    def _move(self, progress: Progress) -> None:
        task = self._tasks.get(progress.stage)
        if task is None:
            task = self._bars.add_task(progress.stage, total=1.0, text=progress.text)
            self._tasks[progress.stage] = task
        self._bars.update(task, completed=progress.done, text=progress.text)

    def _finish(self, progress: Progress) -> None:
        task = self._tasks.pop(progress.stage, None)
        if task is not None:
            self._bars.remove_task(task)
        if self._said.get(progress.stage) != progress.text:  # said once, however often it is told
            self._said[progress.stage] = progress.text
            self._line("✓", progress)
        self._began.pop(progress.stage, None)

    def _line(self, mark: str, progress: Progress) -> None:
        now = self._clock()
        seconds = now - self._began.get(progress.stage, now)
        self._console.print(
            f"{mark} {progress.stage:<20} {seconds:5.1f} s  {progress.text}",
            markup=False,
            soft_wrap=True,
        )


def slug(text: str) -> str:
    """Return ``text`` as Prefect wants keys: lower-case letters, digits and dashes."""
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")
