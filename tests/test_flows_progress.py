"""Progress on a terminal and in whoever listens."""

import io

import pytest
from rich.console import Console

from core.progress import Progress
from flows.progress import RunProgress, Terminal, heard_by, listening, slug


def test_without_a_terminal_progress_is_plain_lines_each_told_once() -> None:
    sink = io.StringIO()
    seconds = iter([0.0, 1.0, 3.0])
    with Terminal(Console(file=sink, width=80), clock=lambda: next(seconds)) as show:
        tell = show.of("aapl")
        tell(Progress("search", 0.5, "trial 3 of 6"))
        show(Progress("aapl search", 0.5, "trial 3 of 6"))
        tell(Progress("search", 1.0, "6 trials, best 0.41"))
        tell(Progress("search", 1.0, "6 trials, best 0.41"))
    assert sink.getvalue() == (
        "… aapl search            1.0 s  trial 3 of 6\n"
        "✓ aapl search            3.0 s  6 trials, best 0.41\n"
    )


def test_a_password_in_an_address_is_not_shown() -> None:
    sink = io.StringIO()
    with Terminal(Console(file=sink, width=80)) as show:
        show(Progress("prefect", 1.0, "this is a run of http://me:pw1@prefect/api"))
    assert "a run of http://me:****@prefect/api\n" in sink.getvalue()


def test_on_a_terminal_a_stage_at_work_is_a_bar_and_a_finished_one_a_line() -> None:
    sink = io.StringIO()
    with Terminal(Console(file=sink, width=80, force_terminal=True)) as show:
        show(Progress("search", 0.5, "trial 3 of 6"))
        show(Progress("gate", 1.0, "refused"))
    text = sink.getvalue()
    assert "━" in text
    assert "trial 3 of 6" in text
    assert "✓ gate" in text


def test_a_listener_hears_what_the_run_hears_until_its_block_ends() -> None:
    run: list[Progress] = []
    terminal: list[Progress] = []
    one = Progress("search", 0.5, "trial 3 of 6")
    with listening(terminal.append):
        heard_by(run.append)(one)
    heard_by(run.append)(one)
    assert run == [one, one]
    assert terminal == [one]


def test_the_run_is_told_at_most_once_a_second_but_always_of_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    told: list[float] = []
    progress = RunProgress("retrain-aapl", clock=lambda: clock[0])
    monkeypatch.setattr(progress, "_tell", lambda one: told.append(one.done))
    for seconds, done in ((0.0, 0.1), (0.5, 0.2), (1.1, 0.3), (1.2, 1.0)):
        clock[0] = seconds
        progress(Progress("search", done, ""))
    assert told == [0.1, 0.3, 1.0]


def test_artifact_keys_are_what_prefect_allows() -> None:
    assert slug("retrain-BRK.B-walk forward") == "retrain-brk-b-walk-forward"
