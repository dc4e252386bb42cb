"""How often the sequential test of a shadow errs, and how long it takes: on simulated streams.

    python -m bench.sequential [--streams 500] [--bars 1260]

A stream is a market and two policies in it: Production, always half invested, and a challenger
with weights of its own, after costs. A challenger that is worse, or no better, must be promoted in
no more streams than α; a better one is to be found, and the median number of bars until then is
its delay.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.settings import Shadow
from registry import sequential
from registry.rates import Rate

YEAR = math.sqrt(252.0)
DAILY = 0.012  # deviation of the market
BEFORE = 60  # bars of history before the stream begins
KNOWN_BARS = 20  # of the volatility that is known before a bar
WORSE = (-2.0, -1.0, 0.0)  # annual Sharpe ratio of the difference; 0: no better, the hardest
BETTER = (1.0, 2.0, 3.0, 4.0)

Draw = Callable[[tuple[int, int], np.random.Generator], np.ndarray]  # mean 0, variance about 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the streams of one market and edge."""

    promoted: Rate
    dropped: Rate
    median_bars: float  # until promoted; infinite: more than half never were


def normal(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return independent normal returns."""
    return rng.normal(size=shape)


def heavy(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return Student's t with three degrees of freedom: no fourth moment."""
    return rng.standard_t(3, shape) / math.sqrt(3.0)


def changing(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a variance that wanders (stochastic volatility) and jumps tenfold half-way."""
    log_variance = np.zeros(shape[0])
    found = np.empty(shape)
    for bar in range(shape[1]):
        log_variance = 0.98 * log_variance + 0.15 * rng.normal(size=shape[0])
        level = 1.0 if bar < shape[1] // 2 else 10.0
        found[:, bar] = np.exp(log_variance / 2.0) * math.sqrt(level) * rng.normal(size=shape[0])
    return found


def crashes(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a market that climbs a little, and in one of 250 bars falls by ten deviations."""
    fell = rng.random(shape) < 1 / 250
    return 0.9 * rng.normal(size=shape) + np.where(fell, -10.0, 10.0 / 249)


MARKETS: dict[str, Draw] = {
    "normal": normal,
    "heavy tails": heavy,
    "changing variance": changing,
    "crashes": crashes,
}


def stream(
    draw: Draw, edge: float, streams: int, bars: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return differences of log returns and the deviation known before each bar, (streams, bars).

    The challenger is in or out by a signal that is worth the annual Sharpe ratio ``edge``: it says
    the sign of the next return rightly so much more often than not.
    """
    noise = DAILY * draw((streams, BEFORE + bars), rng)
    squares = np.cumsum(np.square(noise), axis=1)
    sums = squares[:, KNOWN_BARS:] - squares[:, :-KNOWN_BARS]
    deviation = np.sqrt(sums / KNOWN_BARS)[:, -bars - 1 : -1]
    signal = np.where(rng.random((streams, bars)) < 0.5, -1.0, 1.0)
    market = noise[:, -bars:] + edge / YEAR * signal * deviation
    return 0.5 * signal * market, deviation


def always_in(streams: int, bars: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a challenger without skill that is always in, where the market itself crashes."""
    market = DAILY * crashes((streams, bars), rng)
    return 0.5 * market, np.full((streams, bars), 0.9 * DAILY)


def doubling(streams: int, bars: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a challenger without skill that doubles its weight after every loss, up to 1.

    Small gains, often, and now and then a great loss: what a test that forgets tails falls for.
    """
    market = DAILY * rng.standard_t(3, (streams, bars)) / math.sqrt(3.0)
    found, weight = np.empty((streams, bars)), np.full(streams, 1 / 16)
    for bar in range(bars):
        found[:, bar] = weight * market[:, bar]
        weight = np.where(found[:, bar] < 0.0, np.minimum(2.0 * weight, 1.0), 1 / 16)
    return found, np.full((streams, bars), DAILY)


def run(
    differences: np.ndarray, deviation: np.ndarray, settings: Shadow, place: int = 1
) -> Outcome:
    """Judge every stream as that of the ``place``-th challenger of its Production version."""
    alpha = sequential.share_of(settings.alpha, place)
    ends = [
        sequential.judge(pairs, known, alpha, settings.drop_alpha, settings.longest_bars)
        for pairs, known in zip(differences, deviation, strict=True)
    ]
    waited = [
        float(end.decided_after or 0) if end.verdict == "promote" else math.inf for end in ends
    ]
    promoted = sum(end.verdict == "promote" for end in ends)
    dropped = sum(end.verdict == "drop" for end in ends)
    median = float(np.quantile(waited, 0.5, method="lower"))
    return Outcome(Rate(promoted, len(ends)), Rate(dropped, len(ends)), median)


def main() -> None:
    """Print the table of ``docs/evidence.md``."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--streams", type=int, default=500, help="per row; default: %(default)s")
    parser.add_argument("--bars", type=int, default=1260, help="per stream; default: %(default)s")
    options = parser.parse_args()
    settings = Shadow(longest_bars=options.bars)
    print("| market | edge | promoted | 95 % interval | dropped | median delay |")
    print("|---|---|---|---|---|---|")
    for name, draw in MARKETS.items():
        for edge in (*WORSE, *BETTER):
            rng = np.random.default_rng([1, round(100 * (edge + 100))])
            end = run(*stream(draw, edge, options.streams, options.bars, rng), settings)
            _row(name, f"{edge:+.1f}", end, edge > 0.0)
    for name, what, make in (
        ("crashes", "0.0, always in", always_in),
        ("heavy tails", "0.0, doubles after losses", doubling),
    ):
        rng = np.random.default_rng(2)
        end = run(*make(options.streams, options.bars, rng), settings)
        _row(name, what, end, False)


def _row(market: str, edge: str, end: Outcome, better: bool) -> None:
    low, high = end.promoted.interval(0.95)
    found = math.isfinite(end.median_bars)
    waited = f"{end.median_bars:.0f} bars" if found else "more than half: never"
    print(
        f"| {market} | {edge} | {end.promoted.share:.1%} | {low:.1%} to {high:.1%} | "
        f"{end.dropped.share:.1%} | {waited if better else ''} |"
    )


if __name__ == "__main__":
    main()
