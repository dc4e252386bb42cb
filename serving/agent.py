"""The trading agent: a bundle, the bars it has seen, and one decision per completed bar.

Owns online features (the newest row, built from history by the one feature code), the
observation, and the reasons for a decision. Knows neither orders nor brokers nor the ledger.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.accounts import State
from core.bars import Bar
from core.errors import BadBundle, SpecMismatch
from features.account import account_features
from features.observation import observation_columns, observe
from features.table import build_row, build_table, vix_before
from registry.bundle import Bundle
from serving.attribution import Contribution, explain, in_words
from serving.history import History


@dataclass(frozen=True, slots=True)
class Answer:
    """What the policy wants at one close, what it saw, and why."""

    observation: bytes  # float32, little-endian
    observation_sha256: str
    weight: float  # target, fraction of the sleeve's equity; NaN: hold
    score: float
    confidence: float
    contributions: tuple[Contribution, ...]
    problem: str = ""  # why the policy could not answer; then it holds

    @property
    def words(self) -> str:
        if self.problem:
            return f"hold: {self.problem}"
        target = "hold" if np.isnan(self.weight) else f"target {self.weight:.1%} of equity"
        return f"{target}, confidence {self.confidence:.2f}: {in_words(self.contributions)}"


class TradingAgent:
    """One model version at work on one signal symbol; replaced whole when the alias moves."""

    def __init__(
        self,
        name: str,
        version: str,
        bundle: Bundle,
        signal: History,
        traded: History,
        vix: Callable[[], pd.Series | None] = lambda: None,
    ) -> None:
        """Take up the history so far.

        Raises ``SpecMismatch`` when it is of another interval, or has forgotten what is needed.
        """
        if bundle.spec.interval != signal.instrument.interval:
            raise SpecMismatch(
                f"{name} version {version} decides on {bundle.spec.interval} bars, params.yaml "
                f"gives it {signal.instrument.interval}; retrain it or restore its interval"
            )
        self.name = name
        self.version = version
        self.bundle = bundle
        for history in (signal, traded):
            history.needs(bundle.spec.anchor, bundle.spec.look_back_rows)
        self.columns = observation_columns(bundle.spec)
        self._signal, self._traded = signal, traded
        self._vix = vix
        self._rows: deque[np.ndarray] = deque(maxlen=bundle.spec.look_back_rows + 1)
        self._newest = signal.newest_row if bundle.spec.look_back_rows else None  # of the rows
        self._known = len(signal)  # bars of the signal that the rows reach up to
        if bundle.spec.look_back_rows and len(signal):
            self._take_up()
        if len(signal) and not bundle.spec.uses_vix:
            signal.row(bundle.spec)  # what is carried on from here need not begin at a bar

    def see(self) -> None:
        """Build the feature row of the bar that has just been appended to the signal history."""
        spec = self.bundle.spec
        if self._rows and self._newest == self._signal.newest_row:
            self._rows.pop()  # the bar has grown: its row is computed anew
        elif spec.look_back_rows and (len(self._signal) - self._known > 1 or self._learns_late):
            self._take_up()  # bars became history without a decision
            self._rows.pop()
        self._newest, self._known = self._signal.newest_row, len(self._signal)
        if spec.uses_vix:
            vix, newest = self._vix(), self._signal.newest_row
            if self._learns_late and newest is not None:
                vix = vix_before(vix, newest)
            bars = self._signal.since_anchor(spec.anchor)
            self._rows.append(build_row(bars, spec, spec.interval, vix))
        else:
            self._rows.append(self._signal.row(spec))

    @property
    def _learns_late(self) -> bool:
        """Whether the bar at hand grows, and its day's VIX is known only once it is over."""
        return self.bundle.spec.uses_vix and self._signal.newest_part is not None

    def _take_up(self) -> None:
        """Compute the rows that an observation looks back on from the whole history."""
        spec = self.bundle.spec
        table = build_table(self._signal.frame(), spec, spec.interval, self._vix())
        # Windows run over the clock that signal and traded symbol share, as in a dataset.
        shared = table.loc[table.index.isin(self._traded.frame().index)]
        newest = shared.iloc[-spec.look_back_rows - 1 :]
        for history in (self._signal, self._traded):
            history.holds(newest.index, spec)
        self._rows.clear()
        self._rows.extend(newest.to_numpy())

    def decide(self, state: State, bar: Bar) -> Answer:
        """Decide at the close of ``bar`` of the traded symbol, with the books after it.

        A policy that answers no number holds; the answer names the problem.
        """
        return self.decide_on(account_features(state, bar))

    def decide_on(self, account: np.ndarray) -> Answer:
        """Decide with the account features (1, a) float32 of the books after the newest bar."""
        spec = self.bundle.spec
        scaled = self.bundle.scaler.transform(np.stack(self._rows))[-spec.window :]
        observation = np.asarray(observe(scaled[None], account), dtype="<f4")
        content = observation.tobytes()
        digest = hashlib.sha256(content).hexdigest()
        try:
            decision = self.bundle.decide(observation)
            contributions = explain(self.bundle.policy.scores, observation[0], self.columns)
        except BadBundle as error:
            return Answer(content, digest, np.nan, np.nan, 0.0, (), str(error))
        return Answer(
            observation=content,
            observation_sha256=digest,
            weight=float(decision.weight[0, 0]),
            score=float(decision.score[0, 0]),
            confidence=float(decision.confidence[0]),
            contributions=contributions,
        )
