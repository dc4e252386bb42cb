"""The market as an environment: a batch of accounts for learners, one account for Gymnasium.

Owns episodes: where they begin, when they end, what a step returns. The books are the engine's,
the observation is the features' and the reward is ``training/rewards.py``'s. Knows no learner.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from core.accounts import State, choose, open_accounts
from core.arrays import Array
from core.engine import Fills, PackedMarket, settle, submit
from core.errors import NotEnoughData
from core.risk import Rules, Verdict
from core.settings import Environment
from features.account import LIMIT, account_features
from features.dataset import Dataset
from features.observation import observation_columns, observe_rows
from features.scaler import Scaler
from training.device import arrays_on
from training.rewards import Moments, Outcome, Reward, scaled
from training.spaces import Actions, action_space, observation_space, target_weight
from training.transitions import Transitions

Rows = tuple[int, int]  # first row, and one past the last


@dataclass(frozen=True, slots=True)
class Step:
    """What one bar brought to ``n`` accounts."""

    observation: Array  # float32 (n, D), of the new episode where one has just ended
    reward: Array  # float32 (n,)
    terminated: Array  # bool (n,): ruined or halted
    truncated: Array  # bool (n,): end of the episode or of the data
    last_observation: Array  # float32 (n, D), before any new episode
    row: Array  # int (n,), the row that was lived through
    state: State  # the books before any new episode
    verdict: Verdict  # what risk made of the actions
    fills: Fills  # what traded


class MarketBatch:
    """``n`` accounts in the rows ``rows`` of one dataset, stepped at once.

    Action      discrete (n,) of 0 sell, 1 hold, 2 buy; or continuous (n, 1) in [-1, 1], the
                target weight (below 0 counts as 0 without shorts)
    Observation ``features.observation.observe``, float32 (n, D)
    Reward      of the bar that follows the decision, after costs, × ``reward_scale``
    Timing      decide on the close of a row, fill at the next open, reward at the next close
    Start       flat, with ``cash``, at a row drawn from ``rng``
    End         terminated: ruin or halt; truncated: ``episode_bars`` later, or the last row
    Device      ``cpu``: NumPy; elsewhere market, accounts and what a step returns are torch
                tensors that stay there (``training/device.py``); only starts are drawn here
    """

    def __init__(
        self,
        dataset: Dataset,
        scaler: Scaler,
        rules: Rules,
        environment: Environment,
        reward: Reward,
        n: int,
        rng: np.random.Generator,
        *,
        rows: Rows,
        actions: Actions,
        cash: float,
        device: str = "cpu",
    ) -> None:
        first = max(rows[0], dataset.first_row)
        if rows[1] - first < 2:
            raise NotEnoughData(
                f"{dataset.symbol}: rows {rows[0]} to {rows[1]} leave {max(rows[1] - first, 0)} "
                f"after the features' warm-up (row {first}); an episode needs at least 2"
            )
        self.n, self.rows, self.actions, self.cash = n, (first, rows[1]), actions, cash
        self.rules = rules
        self._settings, self._reward, self._rng = environment, reward, rng
        self.xp, self.device = xp, where = arrays_on(device)
        self._market = PackedMarket.of(dataset.market, xp, where)
        self._scaled = xp.asarray(scaler.transform(dataset.table), device=where)
        self._window = dataset.spec.window
        self.width = len(observation_columns(dataset.spec))
        self.bound = max(dataset.spec.clip, LIMIT)  # of every number in an observation
        self._fresh = open_accounts(n, len(dataset.market.symbols), cash, xp, where)
        self.state = self._fresh
        self.row = self._whole(np.full(n, first))
        self._age = self._whole(np.zeros(n, np.int64))
        self._moments = Moments(n, xp, where)
        self._bar = self._market.at(self.row)

    def reset(self) -> Array:
        """Open every account at a random row and return the first observation (n, D)."""
        return self.begin(self._drawn())

    def begin(self, row: Array) -> Array:
        """Open every account at its ``row`` (n,) and return the first observation (n, D)."""
        self.state = self._fresh
        self._age = self._whole(np.zeros(self.n, np.int64))
        self._moments = Moments(self.n, self.xp, self.device)
        self.row = self._whole(row)
        self._bar = self._market.at(self.row)
        return self._observe()

    def step(self, action: Array) -> Step:
        """Decide, live through one bar, and begin a new episode where one has ended."""
        return self.trade(target_weight(action, self.actions, self.rules.allow_short))

    def trade(self, weight: Array) -> Step:
        """Do what ``step`` does, given target weights (n, 1), NaN: hold."""
        before = self.state
        submission = submit(before, weight, self._bar, self.rules)
        self.row = self.row + 1
        self._age += 1
        self._bar = self._market.at(self.row)
        settlement = settle(submission.state, self._bar, self.rules)
        self.state = after = settlement.state
        terminated = after.terminated
        over = (self._age >= self._settings.episode_bars) | (self.row >= self.rows[1] - 1)
        truncated = over & ~terminated
        reward = self._rewarded(before, after, terminated | truncated)
        row = self.row
        observation = last = self._observe()
        if (terminated | truncated).any():
            observation = self._begin_again(terminated | truncated, last)
        return Step(
            observation=observation,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            last_observation=last,
            row=row,
            state=after,
            verdict=submission.verdict,
            fills=settlement.fills,
        )

    def get_state(self) -> dict[str, Any]:
        """Return books, rows and random numbers: what ``set_state`` needs to go on."""
        state = self.state
        return {
            "clock": state.clock,
            "account": state.account,
            "position": state.position,
            "past_peaks": state.past_peaks,
            "row": self.row,
            "age": self._age,
            "mean": self._moments.mean,
            "mean_square": self._moments.mean_square,
            "rng": self._rng.bit_generator.state,
        }

    def set_state(self, kept: Mapping[str, Any]) -> None:
        """Go on from ``get_state()`` of a batch made of the same arguments."""

        def here(name: str) -> Array:
            return self.xp.asarray(kept[name], device=self.device)

        books = (here(name) for name in ("account", "position", "past_peaks"))
        self.state = State(kept["clock"], *books)
        self.row, self._age = here("row"), here("age")
        self._moments.mean, self._moments.mean_square = here("mean"), here("mean_square")
        self._rng.bit_generator.state = kept["rng"]
        self._bar = self._market.at(self.row)

    def observation(self, row: Array, account: Array) -> Array:
        """Return what accounts with features ``account`` (m, a) see at ``row`` (m,)."""
        return observe_rows(self._scaled, row, self._window, account)

    def worth(self, lived: Transitions) -> np.ndarray:
        """Return the reward of what was lived through elsewhere, float32 (m,)."""
        outcome = Outcome(
            log_return=lived.log_return,
            drawdown=lived.drawdown,
            drawdown_before=lived.drawdown_before,
            mean=lived.mean,
            mean_square=lived.mean_square,
        )
        settings = self._settings
        return np.asarray(scaled(outcome, self._reward, settings.penalty, settings.reward_scale))

    def _whole(self, numbers: Array) -> Array:
        """Put integers where the accounts are."""
        return self.xp.asarray(numbers, device=self.device)

    def _drawn(self) -> Array:
        first, stop = self.rows
        return self._whole(self._rng.integers(first, stop - 1, self.n))

    def _begin_again(self, ended: Array, last: Array) -> Array:
        xp = self.xp
        self.state = choose(ended, self._fresh, self.state)
        self._age = xp.where(ended, 0, self._age)
        self.row = xp.where(ended, self._drawn(), self.row)
        self._bar = self._market.at(self.row)
        observation, some = xp.asarray(last, copy=True), xp.nonzero(ended)[0]
        opened, rows = self.state.only(some), self.row[some]
        observation[some] = self.observation(rows, account_features(opened, self._market.at(rows)))
        return observation

    def _rewarded(self, before: State, after: State, ended: Array) -> Array:
        log_return = after.log_return
        outcome = Outcome(
            log_return=log_return,
            drawdown=after.drawdown,
            drawdown_before=before.drawdown,
            mean=self._moments.mean,
            mean_square=self._moments.mean_square,
        )
        self._moments.update(log_return, ended)
        return scaled(outcome, self._reward, self._settings.penalty, self._settings.reward_scale)

    def _observe(self) -> Array:
        return self.observation(self.row, account_features(self.state, self._bar))


def play(
    market: MarketBatch, decide: Callable[[np.ndarray], np.ndarray], rows: Rows, stretches: int
) -> np.ndarray:
    """Trade ``rows`` cut into equal stretches side by side; return log returns in time order.

    Every stretch begins flat. ``decide`` turns observations (n, D) into target weights (n, 1);
    ``market`` must have one account per stretch and episodes longer than a stretch.
    """
    bars = (rows[1] - rows[0] - 1) // stretches
    observation = market.begin(rows[0] + bars * np.arange(stretches))
    returns = np.empty((bars, stretches))
    for bar in range(bars):
        step = market.trade(decide(observation))
        returns[bar] = step.state.log_return
        observation = step.last_observation
    return returns.T.ravel()


class MarketEnv(gym.Env[np.ndarray, Any]):
    """One account in one market, as a Gymnasium environment.

    ## Action space
    ``Discrete(3)``: 0 sell (weight 0, or −1 where the agent may go short), 1 hold, 2 buy
    (weight 1). Or ``Box(-1, 1, (1,))``: the target weight; below 0 counts as 0 without shorts.

    ## Observation space
    ``Box(-5, 5, (D,))`` float32: ``window`` rows of scaled features, oldest first, then the
    account (position, unrealised profit, drawdown, …); names in ``observation_columns(spec)``.

    ## Reward
    Of the bar that follows the decision, after costs, times ``reward_scale``.

    ## Starting state
    Flat, with ``cash``, at a random row of ``rows``.

    ## Episode end
    Terminated by ruin or halt. Truncated after ``episode_bars``, or at the end of the data.

    ## Info
    ``equity`` (account currency) and ``row`` of the dataset.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own annotation)

    def __init__(
        self,
        dataset: Dataset,
        scaler: Scaler,
        rules: Rules,
        environment: Environment,
        reward: Reward,
        *,
        rows: Rows,
        actions: Actions,
        cash: float,
    ) -> None:
        self._batch = MarketBatch(
            dataset,
            scaler,
            rules,
            environment,
            reward,
            1,
            np.random.default_rng(),
            rows=rows,
            actions=actions,
            cash=cash,
        )
        self.action_space = action_space(actions)
        self.observation_space = observation_space(self._batch.width, self._batch.bound)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Open the account at a random row; the same ``seed`` gives the same episode."""
        super().reset(seed=seed)
        self._batch._rng = self.np_random
        observation = self._batch.reset()
        return observation[0], _info(self._batch.state, self._batch.row)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Decide and live through one bar."""
        step = self._batch.step(np.asarray(action).reshape(1, -1))
        return (
            step.last_observation[0],
            float(step.reward[0]),
            bool(step.terminated[0]),
            bool(step.truncated[0]),
            _info(step.state, step.row),
        )


def _info(state: State, row: np.ndarray) -> dict[str, Any]:
    return {"equity": float(state.equity[0]), "row": int(row[0])}
