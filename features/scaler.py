"""Scaling: feature rows (float64) to what a network likes (float32, about ±1, clipped).

Owns the fitted numbers. ``zscore`` and ``minmax`` are fitted on training rows and then fixed;
``rolling`` is fitted on nothing: each row is measured against the ``rolling_window`` rows that
end with it. One row and many give the same bytes. Knows nothing of what the columns mean.
"""

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.errors import NotEnoughData, SpecMismatch
from features.adjust import Array
from features.spec import FeatureSpec, ScalerKind

_BLOCK = 512  # rows of a rolling pass that stay in the processor's cache
_NEGLIGIBLE = 1e-12  # a spread below this part of the level is rounding, not movement


@dataclass(frozen=True, slots=True)
class Scaler:
    """scaled = clip((value - centre) / spread): one centre and spread per column."""

    kind: ScalerKind
    columns: tuple[str, ...]
    clip: float
    rolling_window: int  # rows; 0 unless kind is rolling
    centre: tuple[float, ...]  # per column; empty when rolling
    spread: tuple[float, ...]

    @classmethod
    def fit(cls, rows: Array, spec: FeatureSpec) -> "Scaler":
        """Fit on the training rows (m, d) alone; raise ``NotEnoughData`` on NaN or too few.

        A column that does not move gets spread 1 and scales to 0.
        """
        centre: tuple[float, ...] = ()
        spread: tuple[float, ...] = ()
        if spec.scaler != "rolling":
            _require_rows(rows, spec)
            if spec.scaler == "zscore":
                middle, width = rows.mean(axis=0), rows.std(axis=0)
            else:
                low, high = rows.min(axis=0), rows.max(axis=0)
                middle, width = (high + low) / 2.0, (high - low) / 2.0
            still = width <= _NEGLIGIBLE * np.abs(middle)
            centre = tuple(middle.tolist())
            spread = tuple(np.where(still, 1.0, width).tolist())
        return cls(spec.scaler, spec.columns, spec.clip, spec.rolling_window, centre, spread)

    @property
    def look_back_rows(self) -> int:
        """Rows before its own that scaling a row needs."""
        return max(self.rolling_window - 1, 0)

    def transform(self, rows: Array) -> npt.NDArray[np.float32]:
        """Scale table rows (m, d) to float32 (m, d); NaN stays NaN.

        When rolling, the first ``look_back_rows`` rows have too little history and are NaN; to
        scale the newest row alone, give it with the ``look_back_rows`` rows before it.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.columns):
            raise SpecMismatch(
                f"rows of shape {rows.shape} to scale, expected (rows, {len(self.columns)})"
            )
        if self.kind == "rolling":
            return self._transform_rolling(rows)
        scaled = rows - np.array(self.centre)
        scaled /= np.array(self.spread)
        clipped: npt.NDArray[np.float64] = np.clip(scaled, -self.clip, self.clip, out=scaled)
        return clipped.astype(np.float32)

    def _transform_rolling(self, rows: Array) -> npt.NDArray[np.float32]:
        result = np.full(rows.shape, np.nan, dtype=np.float32)
        for start in range(self.look_back_rows, len(rows), _BLOCK):
            stop = min(start + _BLOCK, len(rows))
            mean, deviation = _trailing(rows, start, stop, self.rolling_window)
            spread = np.where(deviation <= _NEGLIGIBLE * np.abs(mean), 1.0, deviation)
            scaled = (rows[start:stop] - mean) / spread
            result[start:stop] = np.clip(scaled, -self.clip, self.clip)
        return result

    def to_json(self) -> str:
        """Return JSON; Python writes floats so that every bit comes back."""
        content = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Scaler":
        """Read ``to_json``; raise ``SpecMismatch`` when it is none."""
        try:
            content = json.loads(text)
            for name in ("columns", "centre", "spread"):
                content[name] = tuple(content[name])
            scaler = cls(**content)
        except (ValueError, TypeError, KeyError) as error:
            raise SpecMismatch(f"scaler cannot be read ({error}); retrain the agent") from error
        fitted = 0 if scaler.kind == "rolling" else len(scaler.columns)
        if len(scaler.centre) != fitted or len(scaler.spread) != fitted:
            raise SpecMismatch(
                f"scaler for {len(scaler.columns)} columns has {len(scaler.centre)} centres and "
                f"{len(scaler.spread)} spreads; retrain the agent"
            )
        return scaler


def _require_rows(rows: Array, spec: FeatureSpec) -> None:
    if rows.ndim != 2 or rows.shape[1] != len(spec.columns):
        raise SpecMismatch(
            f"training rows of shape {rows.shape}, expected (rows, {len(spec.columns)})"
        )
    if len(rows) < 2:
        raise NotEnoughData(f"{len(rows)} training rows: a scaler needs at least 2")
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise NotEnoughData(
            f"training row {row}: {spec.columns[column]} is {rows[row, column]}; "
            "fit the scaler on rows after the warm-up (Dataset.first_row)"
        )


def _trailing(rows: Array, start: int, stop: int, window: int) -> tuple[Array, Array]:
    """Mean and deviation of the ``window`` rows that end with each of ``start`` to ``stop``.

    Sums run over lags, oldest first, elementwise: the order of additions, hence every bit, is the
    same for one row and for many. A reduction or a running sum would depend on the length.
    """
    lags = range(window - 1, -1, -1)
    total = np.zeros((stop - start, rows.shape[1]))
    for lag in lags:
        total += rows[start - lag : stop - lag]
    mean = total / window
    total[:] = 0.0
    for lag in lags:
        gap = rows[start - lag : stop - lag] - mean
        gap *= gap
        total += gap
    return mean, np.sqrt(total / window)
