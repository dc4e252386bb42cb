"""What is wrong with bars: reasons row by row, and measures of the whole.

Pure: a frame in, reasons and numbers out. Owns the definitions of a bad row and of each measure;
``validate`` owns what is too much of them. Never changes a price: a bad row is taken out, not
repaired.
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd

from core.calendar import expected_bars, is_partial
from core.settings import Interval, Validation
from sources.actions import carry_actions

PRICES = ("open", "high", "low", "close")
LEAST_SEAM_RATIO = 1.2  # a split smaller than this is within what a price may move in a day
USUAL_BARS = 20  # bars before, whose median volume is the usual one


@dataclass(frozen=True, slots=True)
class Measures:
    """Numbers by which a dataset is judged; ``where`` says where the worst of each was seen."""

    rows: int  # kept
    future_bars: int
    quarantined: float  # fraction of the rows given
    missing_sessions: float  # fraction of the bars the calendar expects between first and last
    unexplained_jump: float  # largest |log return| beyond dividend and split; see ``jumps``
    stale_run: int  # longest run of identical closes with no volume, bars
    stale_opens: float  # fraction of sessions that open exactly at the close before
    seams: int  # splits that are recorded while the price did not follow, or followed twice
    where: dict[str, str]


@dataclass(frozen=True, slots=True)
class Inspected:
    """Rows that are good, rows that are not (with ``reasons``), and the measures of both."""

    kept: pd.DataFrame
    quarantined: pd.DataFrame
    measures: Measures


def inspect(
    bars: pd.DataFrame, interval: Interval, settings: Validation, now: datetime
) -> Inspected:
    """Sort the rows of ``bars`` (BAR_COLUMNS, UTC index) into good and bad, and measure.

    The bar still being made at ``now`` is set aside and counts neither as bad nor as missing. A
    split or dividend on a row that is taken out moves to the next row that stays.
    """
    reasons = _row_reasons(bars, settings.calendar, interval, now)
    good = reasons == ""
    spikes = _spikes(bars[good], settings)
    reasons[np.flatnonzero(good)[spikes]] = f"close jumps by more than {settings.max_jump:g}, back"
    good &= reasons == ""
    quarantined = bars[~good].assign(reasons=reasons[~good])
    ordered = bars[~_out_of_order(bars)]
    kept = carry_actions(_sound_actions(ordered), ordered.index.isin(bars.index[good]))
    return Inspected(kept, quarantined, _measure(kept, quarantined, interval, settings, now))


def _row_reasons(
    bars: pd.DataFrame, calendar: str, interval: Interval, now: datetime
) -> np.ndarray:
    """Return why each row is bad, "" where it is not, (rows,) of str."""
    prices = bars[list(PRICES)].to_numpy(np.float64)
    opened, high, low, close = prices.T
    volume = bars["volume"].to_numpy(np.float64)
    early = bars.index <= pd.Timestamp(now)
    partial = np.zeros(len(bars), dtype=bool)
    if len(bars) and early[-1]:
        partial[-1] = is_partial(calendar, interval, bars.index[-1].to_pydatetime(), now)
    with np.errstate(invalid="ignore"):
        flaws = {
            "in the future": ~early,
            "still being made": partial,
            "no such bar on the calendar": ~_on_calendar(_clock(bars), calendar, interval) & early,
            "time repeated or out of order": _out_of_order(bars),
            "price missing or infinite": ~np.isfinite(prices).all(axis=1),
            "price zero or negative": (prices <= 0.0).any(axis=1),
            "volume missing or negative": ~(volume >= 0.0) | np.isinf(volume),
            "high below low": high < low,
            "open or close above high": (opened > high) | (close > high),
            "open or close below low": (opened < low) | (close < low),
            "dividend or split ratio impossible": ~_action_is_sound(bars),
        }
    reasons = np.full(len(bars), "", dtype=object)
    for reason, found in flaws.items():
        reasons[found] = [f"{before}; {reason}" if before else reason for before in reasons[found]]
    return reasons


def _on_calendar(index: pd.DatetimeIndex, calendar: str, interval: Interval) -> np.ndarray:
    if index.empty:
        return np.zeros(0, dtype=bool)
    on: np.ndarray = index.isin(expected_bars(calendar, interval, index.min(), index.max()))
    return on


def _out_of_order(bars: pd.DataFrame) -> np.ndarray:
    times = _clock(bars).asi8
    out = np.zeros(len(times), dtype=bool)
    out[1:] = times[1:] <= np.maximum.accumulate(times)[:-1]
    return out


def _action_is_sound(bars: pd.DataFrame) -> np.ndarray:
    dividend, ratio = bars["dividend"].to_numpy(), bars["split_ratio"].to_numpy()
    sound: np.ndarray = (
        np.isfinite(dividend) & (dividend >= 0.0) & np.isfinite(ratio) & (ratio > 0.0)
    )
    return sound


def _sound_actions(bars: pd.DataFrame) -> pd.DataFrame:
    sound = _action_is_sound(bars)
    return bars.assign(
        dividend=np.where(sound, bars["dividend"], 0.0),
        split_ratio=np.where(sound, bars["split_ratio"], 1.0),
    )


def explained_returns(bars: pd.DataFrame, price: str = "close") -> np.ndarray:
    """Return log returns from the close before to ``price``, dividend and split included, (T,)."""
    now = (bars[price] * bars["split_ratio"] + bars["dividend"]).to_numpy(np.float64)
    before = np.append(now[:1], bars["close"].to_numpy(np.float64)[:-1])
    moves: np.ndarray = np.log(now / before)
    return moves


def jumps(bars: pd.DataFrame, news_volume: float) -> np.ndarray:
    """Return explained log returns, halved where the volume vouches for them, (T,).

    A crash on news multiplies the volume (Apple lost half on 2000-09-29, on ten times the usual),
    ``news_volume`` times or more; a split that nobody recorded changes it by its ratio only, and
    half the jump of one that large is still too much. What has no volume at all, such as an index
    of volatility, has no shares to split.
    """
    volume = bars["volume"]
    usual = volume.rolling(USUAL_BARS, min_periods=1).median().shift()
    vouched = (volume >= news_volume * usual) & (usual > 0.0) | (volume.max() == 0.0)
    weighed: np.ndarray = explained_returns(bars) * np.where(vouched, 0.5, 1.0)
    return weighed


def _spikes(bars: pd.DataFrame, settings: Validation) -> np.ndarray:
    """Tell bars whose close leaps away and comes back at the next, (T,) bool."""
    if len(bars) < 3:
        return np.zeros(len(bars), dtype=bool)
    moves, max_jump = jumps(bars, settings.jump_volume), settings.max_jump
    after = np.append(moves[1:], 0.0)
    leap = (np.abs(moves) > max_jump) & (np.abs(after) > max_jump)
    spike: np.ndarray = leap & (np.abs(moves + after) < max_jump / 2.0)
    return spike


def _measure(
    kept: pd.DataFrame,
    quarantined: pd.DataFrame,
    interval: Interval,
    settings: Validation,
    now: datetime,
) -> Measures:
    where: dict[str, str] = {}
    partial = int((quarantined["reasons"] == "still being made").sum())
    given = len(kept) + len(quarantined) - partial
    if kept.empty:
        return Measures(0, 0, 1.0, 1.0, 0.0, 0, 0.0, 0, where)
    expected = expected_bars(settings.calendar, interval, kept.index[0], kept.index[-1])
    expected = expected[(expected >= kept.index[0]) & (expected <= kept.index[-1])]
    missing = expected.difference(kept.index)
    if len(missing):
        where["missing_sessions"] = f"{len(missing)} absent, the first {_stamp(missing[0])}"
    if len(quarantined) > partial:
        where["quarantined"] = (
            f"first {_stamp(quarantined.index[0])}: {quarantined.reasons.iloc[0]}"
        )
    future = quarantined[quarantined.index > pd.Timestamp(now)]
    if len(future):
        where["future_bars"] = f"first {_stamp(future.index[0])}, now is {_stamp(now)}"
    return Measures(
        rows=len(kept),
        future_bars=len(future),
        quarantined=(given - len(kept)) / given,
        missing_sessions=len(missing) / max(len(expected), 1),
        unexplained_jump=_largest_jump(kept, settings, where),
        stale_run=_stale_run(kept, where),
        stale_opens=_stale_opens(kept, interval, where),
        seams=_seams(kept, where),
        where=where,
    )


def _largest_jump(bars: pd.DataFrame, settings: Validation, where: dict[str, str]) -> float:
    moves = np.abs(jumps(bars, settings.jump_volume))
    worst = int(np.argmax(moves))
    if worst:
        closes = bars["close"].iloc[worst - 1 : worst + 1].tolist()
        where["unexplained_jump"] = (
            f"close {closes[0]:g} to {closes[1]:g} on {_stamp(bars.index[worst])}"
        )
    return float(moves[worst])


def _stale_run(bars: pd.DataFrame, where: dict[str, str]) -> int:
    stale = (bars["close"].diff() == 0.0) & (bars["volume"] == 0.0)
    run = stale.groupby((~stale).cumsum()).cumsum().astype(int)
    longest = int(run.max())
    if longest:
        where["stale_run"] = f"ends {_stamp(_clock(bars)[int(np.argmax(run))])}"
    return longest


def _stale_opens(bars: pd.DataFrame, interval: Interval, where: dict[str, str]) -> float:
    """Only the first bar of a session counts: within one, opening at the last price is usual."""
    clock = _clock(bars)[1:]
    same = (bars["open"] * bars["split_ratio"]).eq(bars["close"].shift()).iloc[1:].to_numpy()
    if interval != "1d":
        first = clock.normalize() != _clock(bars)[:-1].normalize()
        clock, same = clock[first], same[first]
    if not len(same):
        return 0.0
    by_year = pd.Series(same).groupby(clock.year).mean()
    where["stale_opens"] = f"{by_year.max():.0%} in {by_year.idxmax()}"
    return float(same.mean())


def _seams(bars: pd.DataFrame, where: dict[str, str]) -> int:
    """Count splits for which the opening price is better explained without them."""
    ratio = np.abs(np.log(bars["split_ratio"].to_numpy(np.float64)))
    opened = bars["open"].to_numpy(np.float64)
    before = np.append(opened[:1], bars["close"].to_numpy(np.float64)[:-1])
    without = np.abs(np.log(opened / before))
    seam = (ratio > np.log(LEAST_SEAM_RATIO)) & (without < np.abs(explained_returns(bars, "open")))
    if seam.any():
        first = int(np.argmax(seam))
        where["seams"] = (
            f"{bars['split_ratio'].iloc[first]:g}:1 on {_stamp(bars.index[first])}, "
            f"price {before[first]:g} to {opened[first]:g}"
        )
    return int(seam.sum())


def _clock(bars: pd.DataFrame) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(bars.index)


def _stamp(time: datetime) -> str:
    at = pd.Timestamp(time)
    return f"{at:%Y-%m-%d}" if at == at.normalize() else f"{at:%Y-%m-%d %H:%M} UTC"
