"""Days of trading with IBKR's words in pieces, late and in any order: nothing lost, none doubled.

A few seeds; ``make faults SEEDS=20`` plays every fault and more with many.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from fake_tws.jitter import Jitter
from fault_kit import FRAME, WEIGHTS, linked, play_session
from ibkr_kit import FAST, Trading, audit, events, market

PACE = replace(FAST, patience=30.0)  # the link is not what is tried here
PAUSES = (0.0, 0.0, 0.005, 0.02)


def told(root: Path, jitter: Jitter | None) -> list[str]:
    """Trade the script, the process anew after each bar; return what was told of it.

    Every second session passes while nobody is there.
    """
    with market(root, FRAME) as found:
        assert found.remote is not None
        found.tws.jitter = jitter
        place = 0
        while place < len(FRAME):
            for phase in (0, 1) if place % 2 else ():
                found.play(place, phase)
            trading = Trading(root, found.remote.port, FRAME, WEIGHTS, pace=PACE)
            try:
                play_session(trading, found)
                trading.close_bar()
                linked(trading)
                place = trading.place
            finally:
                trading.close()
        assert audit(root, found.exchange) == []
    return sorted(one for one in events(root) if not one.startswith("link up"))


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return told(tmp_path_factory.mktemp("calm"), None)


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_words_in_any_order_lose_nothing_double_nothing_and_tell_the_same(
    seed: int, calm: list[str], tmp_path: Path
) -> None:
    assert told(tmp_path, Jitter(seed, PAUSES)) == calm
