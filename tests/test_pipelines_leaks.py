"""Whatever knows the future is caught and named; Ratchet's own chain knows nothing of it."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from features_kit import daily_index, params, random_bars, spec

from core.errors import ConfigError, FutureLeak, SpecMismatch
from core.rules import Rules
from features.dataset import Dataset
from features.scaler import Scaler
from features.spec import FeatureSpec
from pipelines.chain import Plan, Steps, chain_of, cuts_of
from pipelines.leaks import Leak, World, prove, require_none
from registry.policy import Decision
from training import backtest

INDEX = daily_index(620)
CALM = {"ATLAS": random_bars(INDEX, 1), "BOREAS": random_bars(INDEX, 2)}
WORLD = World(CALM)
CUTS = cuts_of(INDEX, 320, count=2)


def plan(*indicators: str) -> Plan:
    settings = params()
    rules = Rules.of(settings.account, settings.costs, settings.risk)
    return Plan("ATLAS", "ATLAS", own(*indicators), rules, 100_000.0, INDEX[320])


def own(*indicators: str) -> FeatureSpec:
    return spec("1d", indicators=indicators or ("return_1", "rsi_14", "atr_14"), anchor_years=1)


def found(steps: Steps | None = None, *indicators: str) -> list[Leak]:
    return prove(chain_of(plan(*indicators), steps), WORLD, CUTS)


def test_the_whole_chain_knows_nothing_of_the_future() -> None:
    everything = replace(plan(), spec=spec("1d", anchor_years=1))
    assert prove(chain_of(everything), WORLD, CUTS) == []


def test_a_feature_of_the_users_own_is_proved_like_any_other() -> None:
    assert found(None, "return_1", "own_features:honest") == []


@pytest.mark.parametrize("name", ["tomorrow", "centred", "filled_from_the_future"])
def test_a_feature_that_knows_the_future_is_named(name: str) -> None:
    leaks = found(None, "return_1", f"own_features:{name}", "rsi_14")
    assert {(leak.stage, leak.column) for leak in leaks} == {("features", f"own_features:{name}")}
    chain = chain_of(plan("return_1", f"own_features:{name}"))
    with pytest.raises(
        FutureLeak, match=f"features of ATLAS: own_features:{name} knows the future"
    ):
        require_none(chain, WORLD, CUTS, "features of ATLAS")


def test_a_scaler_fitted_on_everything_is_caught() -> None:
    leaks = found(Steps(fit=lambda table, stop, spec: Scaler.fit(table, spec)))
    assert {leak.stage for leak in leaks} == {"scaler"}
    assert "centre of rsi_14" in {leak.column for leak in leaks}


def test_survivors_chosen_by_how_they_ended_are_caught() -> None:
    def best(bars: Mapping[str, pd.DataFrame], symbol: str) -> str:
        return max(bars, key=lambda name: float(bars[name]["volume"].iloc[-1] % 1_009))

    leaks = [
        leak
        for seed in range(4)
        for leak in prove(chain_of(plan(), Steps(select=best)), WORLD, CUTS, seed)
    ]
    assert {leak.stage for leak in leaks} == {"symbol"}


def test_prices_adjusted_by_later_splits_are_caught() -> None:
    def of_a_later_vintage(bars: Mapping[str, pd.DataFrame]) -> Mapping[str, pd.DataFrame]:
        adjusted = {}
        for name, frame in bars.items():
            later = frame["split_ratio"][::-1].cumprod()[::-1].shift(-1, fill_value=1.0)
            prices = frame[["open", "high", "low", "close"]].div(later, axis=0)
            adjusted[name] = frame.assign(**prices, split_ratio=1.0)
        return adjusted

    leaks = found(Steps(prepare=of_a_later_vintage))
    assert {(leak.stage, leak.column) for leak in leaks} == {
        ("bars", name) for name in ("open", "high", "low", "close")
    }


def test_a_fill_at_the_close_that_was_decided_on_is_caught() -> None:
    def at_the_same_close(policy: object, dataset: Dataset, *rest: object) -> object:
        market = dataset.market
        before = np.vstack([market.open[:1], market.close[:-1]])
        return backtest.run(policy, replace(dataset, market=replace(market, open=before)), *rest)  # type: ignore[arg-type]

    leaks = found(Steps(trade=at_the_same_close))  # type: ignore[arg-type]
    assert [(leak.stage, leak.column) for leak in leaks] == [("fills at the open", "open_price")]
    assert "filled at a price already known" in str(leaks[0])


def test_a_fill_at_the_open_that_knows_its_close_is_caught() -> None:
    def at_the_close(policy: object, dataset: Dataset, *rest: object) -> object:
        market = dataset.market
        return backtest.run(
            policy, replace(dataset, market=replace(market, open=market.close)), *rest
        )  # type: ignore[arg-type]

    leaks = found(Steps(trade=at_the_close))  # type: ignore[arg-type]
    assert {leak.stage for leak in leaks} == {"fills at the open"}
    assert "changed after the open of its bar" in str(leaks[0])


def test_the_code_of_an_own_feature_is_part_of_the_spec() -> None:
    made = own("own_features:honest")
    assert FeatureSpec.from_json(made.to_json()) == made
    with pytest.raises(SpecMismatch, match="own_features:honest changed since"):
        replace(made, own=("0" * 64,)).require_buildable()
    with pytest.raises(SpecMismatch, match="has no function 'gone'"):
        replace(made, columns=("own_features:gone",)).require_buildable()


def test_an_own_feature_must_exist_and_give_a_number_per_bar() -> None:
    with pytest.raises(ConfigError, match="cannot import 'nowhere_at_all'"):
        own("nowhere_at_all:feature")
    with pytest.raises(ConfigError, match=r"returned shape \(\d+,\), expected \(\d+,\)"):
        found(None, "own_features:too_short")


# Every number of the chain that may not know the future: one mistake planted into each -------


def columns_of(leaks: list[Leak], stage: str) -> set[str]:
    assert {leak.stage for leak in leaks} == {stage}
    return {leak.column for leak in leaks}


class Centred:
    """A scaler that subtracts the mean of the rows around each, two later ones among them."""

    def __init__(self, scaler: Scaler) -> None:
        self.columns, self.centre, self.spread = scaler.columns, scaler.centre, scaler.spread

    def transform(self, table: np.ndarray) -> np.ndarray:
        mean = [np.convolve(column, np.ones(5) / 5.0, mode="same") for column in table.T]
        return np.asarray(table - np.transpose(mean), dtype=np.float32)


def test_scaling_by_a_centred_window_is_caught() -> None:
    steps = Steps(
        fit=lambda table, stop, spec: Centred(Scaler.fit(table[:stop], spec)),  # type: ignore[arg-type, return-value]
        trade=lambda probe, dataset, scaler, *rest: backtest.run(
            probe, dataset, Scaler.fit(dataset.table[dataset.first_row :], dataset.spec), *rest
        ),
    )
    assert "rsi_14" in columns_of(found(steps), "scaled features")


def test_an_observation_of_the_row_after_is_caught() -> None:
    def early(policy: object, dataset: Dataset, *rest: object) -> object:
        table = np.vstack([dataset.table[1:], dataset.table[-1:]])
        return backtest.run(policy, replace(dataset, table=table), *rest)  # type: ignore[arg-type]

    assert "rsi_14" in columns_of(found(Steps(trade=early)), "observation")  # type: ignore[arg-type]


class Foresees:
    """Goes in on the bars before those that rise."""

    def __init__(self, dataset: Dataset, row: int) -> None:
        self._close, self._row = dataset.market.close[:, 0], row

    def decide(self, observation: np.ndarray) -> Decision:
        rise = self._close[self._row + 1] / self._close[self._row] - 1.0
        self._row += 1
        return Decision(np.array([[float(rise > 0)]]), np.array([[rise]]), np.array([rise]))


def test_an_action_that_knows_the_next_close_is_caught() -> None:
    def foreseen(policy: object, dataset: Dataset, *rest: object) -> object:
        begin = rest[2].start  # type: ignore[attr-defined]
        return backtest.run(Foresees(dataset, begin), dataset, *rest)  # type: ignore[arg-type]

    assert "score" in columns_of(found(Steps(trade=foreseen)), "decision")  # type: ignore[arg-type]


def test_a_stop_that_fills_at_the_next_bars_low_is_caught() -> None:
    def worse(policy: object, dataset: Dataset, *rest: object) -> object:
        result = backtest.run(policy, dataset, *rest)  # type: ignore[arg-type]
        low = np.vstack([result.market.low[1:], result.market.low[-1:]])
        prices = np.where(result.fills.exit_shares != 0.0, low, result.fills.exit_price)
        return replace(result, fills=result.fills._replace(exit_price=prices))

    tight = replace(plan(), rules=plan().rules.but(stop_loss=0.01))
    stops = chain_of(tight)(WORLD, CUTS[1])["fills inside the bar"]["exit_shares"]
    stopped = stops.index[(stops != 0.0) & (stops.index < CUTS[1])][-1:]
    assert prove(chain_of(tight), WORLD, stopped) == []
    leaks = prove(chain_of(tight, Steps(trade=worse)), WORLD, stopped)  # type: ignore[arg-type]
    assert columns_of(leaks, "fills inside the bar") == {"exit_price"}


def test_a_curve_judged_against_its_own_end_is_caught() -> None:
    def detrended(policy: object, dataset: Dataset, *rest: object) -> object:
        result = backtest.run(policy, dataset, *rest)  # type: ignore[arg-type]
        return replace(result, equity=result.equity - result.equity.mean() + result.opening_cash)

    leaks = found(Steps(trade=detrended))  # type: ignore[arg-type]
    assert columns_of(leaks, "the gate's input") == {"return", "equity"}
