"""Observations: the only place where what a policy sees is put together.

Owns the order of the numbers: the window of scaled feature rows, oldest row first, then the
account. NumPy or torch, one account or thousands. ``features/blocks.py`` makes the same in place.
"""

from core.arrays import Array, namespace
from features.account import ACCOUNT_COLUMNS
from features.spec import FeatureSpec


def observe(window: Array, account: Array) -> Array:
    """Join scaled feature rows (n, w, d) and account features (n, a), both float32.

    Returns float32 (n, w * d + a); names in ``observation_columns``.
    """
    xp = namespace(account)
    accounts, rows, columns = window.shape
    return xp.concat([xp.reshape(window, (accounts, rows * columns)), account], axis=1)


def observe_rows(scaled_table: Array, rows: Array, window: int, account: Array) -> Array:
    """Observe n accounts whose newest rows are ``rows`` (n,) integers of a scaled table (T, d).

    Every row must be at least ``window - 1``; account features as for ``observe``.
    """
    if window == 1:
        return observe(scaled_table[rows][:, None, :], account)
    xp = namespace(rows)
    lags = xp.arange(1 - window, 1, device=rows.device)
    return observe(scaled_table[rows[:, None] + lags], account)


def observation_columns(spec: FeatureSpec) -> tuple[str, ...]:
    """Name each number of an observation; ``rsi_14[-2]`` is the value two rows ago."""
    lags = range(spec.window - 1, -1, -1)
    named = (f"{name}[-{lag}]" if lag else name for lag in lags for name in spec.columns)
    return (*named, *ACCOUNT_COLUMNS)
