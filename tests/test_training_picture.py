"""The picture: the same numbers, the same bytes, and every agent's verdict on it."""

import numpy as np

from training.picture import Panel, draw


def panels() -> list[Panel]:
    time = np.arange("2020-01-01", "2020-04-01", dtype="datetime64[D]")
    growth = {"candidate": np.linspace(1, 1.2, 91), "buy_and_hold": np.linspace(1, 0.9, 91)}
    return [Panel("aapl", "refuse", time, growth), Panel("planted", "promote", time, growth)]


def test_the_picture_names_agents_contenders_and_verdicts() -> None:
    drawn = draw(panels()).decode()
    for wanted in ("aapl", "planted", "refuse", "promote", "candidate", "buy and hold"):
        assert f">{wanted}<" in drawn


def test_the_same_numbers_draw_the_same_bytes() -> None:
    assert draw(panels()) == draw(panels())
