"""What is learned from which rows, how, and what a candidate has to show.

Owns the sections of params.yaml between the bars and the gate.
"""

from typing import Literal

from pydantic import Field

from core.settings.section import Section


class Validation(Section):
    """Thresholds of the data gate."""

    max_missing_sessions: float = Field(0.02, ge=0, lt=1)  # fraction of calendar sessions absent
    max_quarantined: float = Field(0.02, ge=0, lt=1)  # fraction of rows taken out
    max_jump: float = Field(0.5, gt=0)  # |log return| not explained by a corporate action
    jump_volume: float = Field(5.0, gt=1)  # × the usual volume is news: a jump counts half
    max_stale_bars: int = Field(10, ge=1)  # run of identical closes with no volume
    max_stale_opens: float = Field(0.25, gt=0, le=1)  # share of opens equal to the close before
    calendar: str = "XNYS"  # exchange_calendars name


class Features(Section):
    """What a policy sees of the market; the fitted spec travels in the bundle."""

    indicators: tuple[str, ...] | Literal["all"] = "all"
    # columns of features/indicators.py, and a user's own as "package.module:function"
    include_vix: bool = True  # where the source has it
    scaler: Literal["zscore", "minmax", "rolling"] = "zscore"
    clip: float = Field(5.0, gt=0)  # scaled values are clipped to ± this
    rolling_window_bars: int = Field(252, ge=20)  # of the rolling scaler
    anchor_years: int = Field(2, ge=1)  # daily: history starts on 1 January so many years before
    anchor_sessions: int = Field(20, ge=2)  # intraday: history starts so many sessions before


class Split(Section):
    """Rows by time: train | validation | hold-out | paper."""

    train: float = Field(0.70, gt=0, lt=1)
    validation: float = Field(0.15, gt=0, lt=1)
    embargo_bars: int = Field(5, ge=0)  # dropped after a training window
    first_fold: float = Field(0.40, gt=0, lt=1)  # of the research rows: never out of sample
    paper_bars: int = Field(126, ge=0)  # newest bars, kept for the paper session


class Environment(Section):
    """The market as a Gymnasium environment."""

    window: int = Field(1, ge=1)  # newest feature rows in an observation
    episode_bars: int = Field(252, ge=2)
    accounts: int = Field(256, ge=1)  # stepped at once
    reward_scale: float = Field(100.0, gt=0)
    penalty: float = Field(0.1, ge=0)  # weight of the drawdown or volatility penalty


class Ppo(Section):
    """Fixed hyperparameters of PPO; the study searches the others around these."""

    learning_rate: float = Field(5e-4, gt=0)
    discount: float = Field(0.99, gt=0, lt=1)
    gae_lambda: float = Field(0.95, gt=0, le=1)
    clip: float = Field(0.2, gt=0)
    entropy: float = Field(0.005, ge=0)
    epochs: int = Field(4, ge=1)
    rollout_bars: int = Field(32, ge=1)  # per account and iteration
    minibatch: int = Field(1024, ge=1)
    hidden: tuple[int, ...] = (64, 64)
    steps: int = Field(400_000, ge=1)  # environment steps of one training


class Sac(Section):
    """Fixed hyperparameters of SAC."""

    learning_rate: float = Field(1e-3, gt=0)
    discount: float = Field(0.97, gt=0, lt=1)
    tau: float = Field(0.01, gt=0, le=1)
    batch: int = Field(256, ge=1)
    replay: int = Field(200_000, ge=1)  # transitions
    steps_per_update: int = Field(32, ge=1)  # environment steps per gradient update
    warmup: int = Field(2_000, ge=0)  # environment steps before the first update
    hidden: tuple[int, ...] = (64, 64)
    updates: int = Field(4_000, ge=1)  # gradient updates of one training


class Training(Section):
    """Ray actors inside one training, for batches and networks too large for one process.

    None is the fastest for networks of the usual size. Their numbers are part of what decides a
    policy's weights: the same numbers, the same weights.
    """

    runners: int = Field(0, ge=0)  # each steps a part of the accounts; 0: the training itself does
    learners: int = Field(0, ge=0)  # share every batch, average their gradients; 0: likewise


class Size(Section):
    """How much work one retraining is."""

    trials: int = Field(20, ge=1)
    seeds: int = Field(5, ge=1)
    folds: int = Field(4, ge=1)
    effort: float = Field(1.0, gt=0, le=10)  # multiplies `steps` and `updates`


class Search(Section):
    """The Optuna study inside every retraining."""

    generation: int = Field(4, ge=1)  # trials asked for together; independent of core count
    reports: int = Field(5, ge=2)  # validation points per trial at which it may be pruned
    prune_below_quantile: float = Field(0.35, ge=0, lt=1)
    seed: int = 0
    sizes: dict[str, Size] = Field(
        {"default": Size(), "demo": Size(trials=6, seeds=3, folds=2, effort=0.25)}
    )


class Gate(Section):
    """What a candidate has to show before it may become Production."""

    min_holdout_bars: int = Field(200, ge=20)
    confidence: float = Field(0.95, gt=0.5, lt=1)  # of the deflated Sharpe ratio
    champion_confidence: float = Field(0.90, gt=0.5, lt=1)  # of the difference to the champion
    difference_confidence: float = Field(0.95, gt=0.5, lt=1)  # of that to each baseline
    bootstrap_samples: int = Field(2_000, ge=100)
    bootstrap_block_bars: int = Field(10, ge=1)  # mean block of the stationary bootstrap
    max_drawdown: float = Field(0.35, gt=0, lt=1)  # on the hold-out
    worst_seed_loss: float = Field(0.15, gt=0, lt=1)  # of equity, on the hold-out
    superiority_level: float = Field(0.05, gt=0, lt=1)  # p-value against each baseline
    max_loss_probability: float = Field(0.60, gt=0, le=1)  # of the trial chosen elsewhere
    worst_regime_loss: float = Field(0.35, gt=0, lt=1)  # of equity, in any of the regimes
    min_capacity: float = Field(2.0, ge=1)  # multiples of the sleeve's own capital
    seed: int = 0


class Monitor(Section):
    """Drift: newest features against the Production model's own training window."""

    window_bars: int = Field(60, ge=20)
    threshold_quantile: float = Field(0.99, gt=0.5, lt=1)  # over windows of the training history
    alarms_in_a_row: int = Field(2, ge=1)
    cooldown_days: int = Field(21, ge=0)
