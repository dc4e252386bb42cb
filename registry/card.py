"""The card: what a policy is, and everything that made it.

Owns the fields of ``card.json`` and their exact JSON form. Knows neither files nor MLflow.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from core.errors import BadBundle

FORMAT = 1  # of card.json; raised when an older Ratchet could misread a newer card


@dataclass(frozen=True, slots=True)
class ActionSpace:
    """What the policy may answer."""

    kind: Literal["discrete", "continuous"]
    weights: tuple[float, ...] = ()  # discrete: the target weights to choose from
    low: float = 0.0  # continuous: smallest target weight, fraction of equity
    high: float = 1.0  # continuous: largest target weight, fraction of equity


@dataclass(frozen=True, slots=True)
class Card:
    """One policy's identity and lineage; plain data, no live object."""

    agent: str
    algorithm: str  # ppo, sac, or one of registry.baselines.BASELINES
    symbols: tuple[str, ...]  # traded, in the order of the policy's outputs
    signal_symbol: str  # whose features the policy sees
    interval: str  # of its bars: 1d, 1h …
    action_space: ActionSpace
    dataset_sha256: str
    commit: str  # git commit of the code that made it
    seed: int
    created_at: str  # ISO 8601, UTC
    trial: int | None = None  # number of the study's trial; None: not from a study
    train_first: str | None = None  # first bar trained or tuned on, ISO 8601; None: never trained
    train_last: str | None = None  # last bar trained or tuned on, ISO 8601
    parent: str | None = None  # sha256 of the bundle it was warm-started from
    rules: Mapping[str, Any] = field(
        default_factory=dict
    )  # account, costs, limits it learned under
    params: Mapping[str, Any] = field(default_factory=dict)  # params.yaml plus the run's edits
    dvc_lock_sha256: str | None = None
    gate: Mapping[str, Any] | None = None  # GateReport.to_json(), once judged

    def to_json(self) -> dict[str, Any]:
        """Return plain data; ``from_json`` gives back an equal card."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Build a card from plain data; raise ``BadBundle`` naming the field that is wrong."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else content
            raise BadBundle(f"card.json: expected format {FORMAT}, found {found!r}")
        given = {key: value for key, value in content.items() if key != "format"}
        known = {f.name for f in fields(cls)}
        if unknown := sorted(given.keys() - known):
            raise BadBundle(f"card.json: unknown field `{unknown[0]}`")
        try:
            space = given["action_space"]
            given["action_space"] = ActionSpace(**{**space, "weights": tuple(space["weights"])})
            given["symbols"] = tuple(given["symbols"])
            return cls(**given)
        except (KeyError, TypeError) as error:
            raise BadBundle(f"card.json: incomplete or misshapen ({error})") from error
