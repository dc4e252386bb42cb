"""The demo's table, on whatever it is printed."""

import io

import pytest
from rich.console import Console

from flows.scoreboard import HEADS, _table

ROW = (
    "aapl\nAAPL",
    "buy and hold\n+84.4 %, Sharpe 1.48",
    "PPO\n6 trials, 3 seeds",
    "+98.1 %",
    "1.66",
    "17.3 %",
    "insufficient evidence",
    "version 2\nProduction, Challenger,\nthen rolled back to 1",
    "version 1: -24.5 % in 126 bars\nequals its backtest",
)


@pytest.mark.parametrize(("terminal", "width"), [(False, 80), (True, 80), (True, 200)])
def test_no_word_of_the_table_is_cut(terminal: bool, width: int) -> None:
    sink = io.StringIO()
    _table(Console(file=sink, width=width, force_terminal=terminal), [ROW])
    told = sink.getvalue()
    assert "\u2026" not in told
    for text in (*HEADS, *(part for cell in ROW for part in cell.split("\n"))):
        assert text.rstrip(",") in told


def test_on_a_narrow_terminal_no_line_is_wider_than_it() -> None:
    sink = io.StringIO()
    _table(Console(file=sink, width=80, force_terminal=True, no_color=True), [ROW])
    assert max(len(line) for line in sink.getvalue().splitlines()) <= 80
