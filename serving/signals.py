"""Signals: what an agent's process is asked and what it answers, as plain JSON.

Owns the schema and its checks. What arrives from another process is not trusted: a signal that is
incomplete, not finite where it must be, or built on other books than asked about is refused.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from core.errors import ExecutionError
from serving.agent import Answer
from serving.attribution import TOP, Contribution

# What reading a message raises that is not what it should be, however malicious.
NONSENSE = (
    ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ask:
    """What does this agent want at this close, decided by this version?"""

    agent: str
    bar_time: datetime
    version: str
    bundle_sha256: str
    account: tuple[float, ...]  # account features, float32

    def encode(self) -> bytes:
        return encode(asdict(self) | {"bar_time": self.bar_time.isoformat()})

    @classmethod
    def decode(cls, content: Mapping[str, Any]) -> "Ask":
        return cls(
            content["agent"],
            datetime.fromisoformat(content["bar_time"]),
            content["version"],
            content["bundle_sha256"],
            tuple(content["account"]),
        )


@dataclass(frozen=True, slots=True)
class Signal:
    """One decision, named by everything it answers."""

    agent: str
    token: str  # of the process that was started for this agent
    bar_time: datetime
    version: str
    bundle_sha256: str
    answer: Answer

    def encode(self) -> bytes:
        answer = self.answer
        return encode(
            {
                "agent": self.agent,
                "token": self.token,
                "bar_time": self.bar_time.isoformat(),
                "version": self.version,
                "bundle_sha256": self.bundle_sha256,
                "observation": base64.b64encode(answer.observation).decode("ascii"),
                "weight": _number_or_none(answer.weight),
                "score": _number_or_none(answer.score),
                "confidence": answer.confidence,
                "contributions": [asdict(one) for one in answer.contributions],
                "problem": answer.problem,
                "rationale": answer.words,
            }
        )

    @classmethod
    def decode(cls, message: bytes) -> "Signal":
        """Return a signal of sound form; raise ``ExecutionError`` saying what is wrong with it."""
        try:
            content = json.loads(message)
            observation = base64.b64decode(content["observation"], validate=True)
            answer = Answer(
                observation=observation,
                observation_sha256=hashlib.sha256(observation).hexdigest(),
                weight=_float(content, "weight", none=math.nan),
                score=_float(content, "score", none=math.nan),
                confidence=_float(content, "confidence"),
                contributions=tuple(map(_contribution, content["contributions"][:TOP])),
                problem=_text(content, "problem"),
            )
            moment = datetime.fromisoformat(_text(content, "bar_time"))
            if moment.tzinfo is None or len(observation) % 4:
                raise ValueError("a time without a zone, or half a number observed")
            signal = cls(
                _text(content, "agent"),
                _text(content, "token"),
                moment,
                _text(content, "version"),
                _text(content, "bundle_sha256"),
                answer,
            )
        except NONSENSE as error:
            start = message[:60].decode("utf-8", "replace")
            problem = f"{type(error).__name__}: {error}"
            raise ExecutionError(f"no signal: {problem}; it begins {start!r}") from error
        if not 0.0 <= answer.confidence <= 1.0:
            raise ExecutionError(f"confidence {answer.confidence!r}, expected 0 to 1")
        if math.isnan(answer.score) and not answer.problem:
            raise ExecutionError("no score, and no problem named that would explain it")
        return signal

    def check(self, ask: Ask, numbers: int) -> None:
        """Raise ``ExecutionError`` unless this answers ``ask`` with ``numbers`` observed."""
        asked, answered = (ask.version, ask.bundle_sha256), (self.version, self.bundle_sha256)
        if answered != asked:
            raise ExecutionError(f"decided by version {self.version}, asked was {ask.version}")
        seen = np.frombuffer(self.answer.observation, "<f4")
        if len(seen) != numbers:
            raise ExecutionError(f"observed {len(seen)} numbers, expected {numbers}")
        account = np.asarray(ask.account, "<f4")
        if seen[numbers - len(account) :].tobytes() != account.tobytes():
            raise ExecutionError("observed another account than the one asked about")


def encode(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode("utf-8")


def account_of(features: np.ndarray) -> tuple[float, ...]:
    """Return (1, a) account features as plain numbers."""
    return tuple(float(number) for number in features[0])


def _number_or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _float(content: Mapping[str, Any], name: str, none: float | None = None) -> float:
    value = content[name]
    if value is None and none is not None:
        return none
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, expected a finite number")
    return float(value)


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, expected text")
    value.encode("utf-8")  # half a surrogate pair is no text
    return value


def _contribution(content: Mapping[str, Any]) -> Contribution:
    return Contribution(_text(content, "name"), _float(content, "value"), _float(content, "effect"))
