"""Progress as people see it: bars or lines on a terminal, artifacts and logs in a Prefect run.

Owns the showing, not the work. A listener that fails must never end a training, so trouble with
Prefect's API is logged and the work goes on.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

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

        logger = get_run_logger()
        logger.info("%s %3.0f %%  %s", progress.stage, 100 * progress.done, progress.text)
        percent = 100.0 * min(max(progress.done, 0.0), 1.0)
        try:
            known = self._artifacts.get(progress.stage)
            if known is None:
                made = create_progress_artifact(
                    percent, key=slug(f"{self._key}-{progress.stage}"), description=progress.text
                )
                self._artifacts[progress.stage] = made  # type: ignore[assignment]
            else:
                update_progress_artifact(known, percent, description=progress.text)
        except Exception as error:  # noqa: BLE001 - whatever the API throws, training goes on
            logger.warning("progress was not stored in Prefect: %s", error)


class Terminal:
    """Shows progress on a terminal: bars where there is one, else a line per step."""

    def __init__(self, console: Console, title: str = "") -> None:
        self._console = console
        self._title = title
        self._last_line: dict[str, str] = {}
        self._tasks: dict[str, int] = {}
        self._bars: Bars | None = None

    def __enter__(self) -> "Terminal":
        if self._console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description:<14}"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.fields[text]}"),
                console=self._console,
            )
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        if self._bars is None:
            self._line(progress)
            return
        task = self._tasks.get(progress.stage)
        if task is None:
            task = self._bars.add_task(progress.stage, total=1.0, text=progress.text)
            self._tasks[progress.stage] = task
        self._bars.update(task, completed=progress.done, text=progress.text)  # type: ignore[arg-type]

    def _line(self, progress: Progress) -> None:
        line = f"{self._title}{progress.stage:<14} {100 * progress.done:3.0f} %  {progress.text}"
        if self._last_line.get(progress.stage) != line:
            self._last_line[progress.stage] = line
            self._console.print(line, highlight=False, soft_wrap=True)


def slug(text: str) -> str:
    """Return ``text`` as Prefect wants keys: lower-case letters, digits and dashes."""
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")
