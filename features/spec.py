"""What an agent sees, as data: columns, anchor, window, scaling, version.

Owns the description and its hash. Computes no feature. The spec travels in the bundle; code that
would build anything else refuses the bundle.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from core.errors import ConfigError, SpecMismatch
from core.settings import Interval, Params
from features.indicators import INDICATORS, VERSION, VIX_INDICATORS
from features.own import is_path, own_sha256

ScalerKind = Literal["zscore", "minmax", "rolling"]


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One way to turn bars into observations."""

    columns: tuple[str, ...]  # of the feature table, in this order
    interval: Interval  # of the bars
    anchor: int  # daily: years before the row's own; intraday: days with bars before the row's
    window: int  # newest rows in an observation
    scaler: ScalerKind
    clip: float  # scaled values are clipped to ± this
    rolling_window: int  # rows of the rolling scaler; 0 with the others
    version: int = VERSION  # of features/indicators.py
    own: tuple[str, ...] = ()  # sha256 of the module of each column of the user's own

    @property
    def look_back_rows(self) -> int:
        """Rows of the table before its own that an observation needs."""
        return self.window - 1 + max(self.rolling_window - 1, 0)

    @property
    def uses_vix(self) -> bool:
        return any(column in VIX_INDICATORS for column in self.columns)

    @property
    def table_part(self) -> dict[str, Any]:
        """What decides the numbers of the table, before windows and scaling."""
        part = json.loads(self.to_json())
        names = ("columns", "interval", "anchor", "version", "own")
        return {name: part[name] for name in names if name in part}

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        content = asdict(self)
        if not self.own:
            del content["own"]
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "FeatureSpec":
        """Read ``to_json``; raise ``SpecMismatch`` where this code builds other features."""
        try:
            content = json.loads(text)
            own = {"own": tuple(content["own"])} if "own" in content else {}
            spec = cls(**content | {"columns": tuple(content["columns"])} | own)
        except (ValueError, TypeError, KeyError) as error:
            raise SpecMismatch(f"feature spec cannot be read ({error}); retrain") from error
        spec.require_buildable()
        return spec

    def require_buildable(self) -> None:
        """Raise ``SpecMismatch`` if this code would build other numbers than the spec says."""
        catalogue = {*INDICATORS, *VIX_INDICATORS}
        unknown = [c for c in self.columns if c not in catalogue and not is_path(c)]
        if unknown:
            raise SpecMismatch(
                f"feature columns unknown to this Ratchet: {', '.join(unknown)}; "
                "retrain the agent or use the Ratchet that trained it"
            )
        if self.version != VERSION:
            raise SpecMismatch(
                f"features of version {self.version}, this Ratchet builds version {VERSION} of "
                f"{', '.join(self.columns)}; retrain the agent"
            )
        try:
            found = _own(self.columns)
        except ConfigError as error:
            raise SpecMismatch(f"{error}; restore it or retrain the agent") from error
        if found != self.own:
            raise SpecMismatch(
                f"the code of {', '.join(filter(is_path, self.columns))} changed since the agent "
                "was trained; restore it or retrain the agent"
            )


def spec_from(params: Params, interval: Interval = "1d", vix: bool = False) -> FeatureSpec:
    """Return the spec that params.yaml asks for; ``vix``: the VIX covers the bars.

    VIX columns come last, only on daily bars and only with ``features.include_vix``. Raises
    ``ConfigError`` on an unknown indicator.
    """
    section = params.features
    columns = tuple(INDICATORS) if section.indicators == "all" else section.indicators
    unknown = [c for c in columns if c not in INDICATORS and not is_path(c)]
    if unknown or not columns or len(set(columns)) < len(columns):
        raise ConfigError(
            "features.indicators: expected different names of features/indicators.py, or of "
            "package.module:function, found "
            f"{', '.join(unknown) or list(columns)}; known: {', '.join(INDICATORS)}"
        )
    if vix and section.include_vix and interval == "1d":
        columns += tuple(VIX_INDICATORS)
    return FeatureSpec(
        columns=columns,
        interval=interval,
        anchor=section.anchor_years if interval == "1d" else section.anchor_sessions,
        window=params.environment.window,
        scaler=section.scaler,
        clip=section.clip,
        rolling_window=section.rolling_window_bars if section.scaler == "rolling" else 0,
        own=_own(columns),
    )


def _own(columns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(own_sha256(name) for name in columns if is_path(name))
