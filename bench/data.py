"""The data that contenders share, as NumPy archives which every virtual environment can read."""

from pathlib import Path

import numpy as np

from bench import engine, learning
from core.bars import Market

PADDING = 9  # columns of noise: gym-trading-env then shows 93 numbers, as Ratchet does


def write_engine(folder: Path, quick: bool) -> None:
    """Write the bars that ``bench.engine`` trades."""
    market = engine.random_market(np.random.default_rng(0))
    _write(folder, market, np.zeros((len(market.time), 1)))


def write_learning(folder: Path, quick: bool) -> None:
    """Write the market that ``bench.learning`` learns, and its feature table."""
    dataset = learning.wide_dataset()
    noise = np.random.default_rng(2).standard_normal((len(dataset), PADDING))
    _write(folder, dataset.market, np.hstack([dataset.table, noise]))


def write_paths(folder: Path, quick: bool) -> None:
    """Write the histories that ``bench.paths`` trades, (bars, paths) of each column."""
    from bench import sides
    from pipelines.histories import History

    frames = [History("bootstrapped", number).bars() for number in range(sides.PATHS)]
    names = ("open", "high", "low", "close", "volume")
    columns = {n: np.column_stack([frame[n].to_numpy() for frame in frames]) for n in names}
    np.savez(folder / "paths.npz", **columns)  # type: ignore[arg-type]


def write_nothing(folder: Path, quick: bool) -> None:
    """Write nothing: the contenders make the same themselves."""


def _write(folder: Path, market: Market, table: np.ndarray) -> None:
    np.savez(
        folder / "market.npz",
        open=market.open[:, 0],
        high=market.high[:, 0],
        low=market.low[:, 0],
        close=market.close[:, 0],
        volume=market.volume[:, 0],
        table=table,
    )
