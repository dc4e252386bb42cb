from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from features_kit import daily_index, random_bars, spec

from core.errors import CorruptFile, DataError, UnknownAgent
from core.home import Home
from core.settings import Params, parse_params
from features.table import build_table, risk_columns
from pipelines import featurize
from pipelines.dataset import load_dataset, load_training_dataset
from pipelines.featurize import features_path, validated_path
from sources.actions import carry_actions
from sources.files import parquet_bytes, write_whole

INDEX = random_bars(daily_index(420), seed=31, actions=False)
FUND = random_bars(daily_index(420), seed=32)


def params(**sections: object) -> Params:
    agents = {
        "stock": {"symbol": "FUND"},
        "fund": {"symbol": "FUND", "train_on": "INDEX"},
        "minutes": {"symbol": "FUND", "interval": "5m"},
    }
    return parse_params({"agents": agents, **sections})


def ready_home(tmp_path, fund: pd.DataFrame = FUND, index: pd.DataFrame = INDEX) -> Home:
    home = Home(tmp_path)
    for name, bars in {"FUND": fund, "INDEX": index}.items():
        write_whole(validated_path(home, name), parquet_bytes(bars))
        featurize.run(home, params(), name)
    return home


def test_an_agent_trades_its_symbol_and_looks_at_its_signal(tmp_path):
    dataset = load_dataset(ready_home(tmp_path), params(), "fund")
    assert (dataset.symbol, dataset.signal_symbol, dataset.interval) == ("FUND", "INDEX", "1d")
    assert dataset.market.symbols == ("FUND",)
    assert dataset.market.close[:, 0].tobytes() == FUND["close"].to_numpy().tobytes()
    assert dataset.market.atr[-1, 0] == risk_columns(FUND, spec(), "1d")["atr"].iloc[-1]
    assert dataset.table.tobytes() == build_table(INDEX, spec(), "1d").to_numpy().tobytes()


def test_an_agent_learns_on_its_signal_symbol(tmp_path):
    home = ready_home(tmp_path)
    dataset = load_training_dataset(home, params(), "fund")
    assert (dataset.symbol, dataset.signal_symbol) == ("INDEX", "INDEX")
    assert dataset.market.close[:, 0].tobytes() == INDEX["close"].to_numpy().tobytes()
    same = load_training_dataset(home, params(), "stock")
    assert same.sha256 == load_dataset(home, params(), "stock").sha256


def test_the_same_files_give_the_same_hash(tmp_path):
    first = load_dataset(ready_home(tmp_path / "one"), params(), "fund")
    second = load_dataset(ready_home(tmp_path / "two"), params(), "fund")
    assert first.sha256 == second.sha256


def test_windows_and_scaling_need_no_new_features(tmp_path):
    home = ready_home(tmp_path)
    other = params(environment={"window": 3}, features={"scaler": "minmax"})
    dataset = load_dataset(home, other, "fund")
    assert dataset.spec.window == 3
    assert dataset.spec.scaler == "minmax"


def test_a_bundle_sees_the_bars_through_its_own_spec(tmp_path):
    home = ready_home(tmp_path)
    narrow = replace(spec(), columns=("rsi_14", "macd"), anchor=1, window=2)
    dataset = load_dataset(home, params(), "fund", narrow)
    assert dataset.spec == narrow
    assert dataset.table.tobytes() == build_table(INDEX, narrow, "1d").to_numpy().tobytes()


def test_bars_of_one_symbol_only_drop_out_and_their_actions_move_on(tmp_path):
    fund = FUND.copy()
    fund[["split_ratio", "dividend"]] = [1.0, 0.0]
    fund.iloc[300, fund.columns.get_loc("split_ratio")] = 2.0
    home = ready_home(tmp_path, fund, INDEX.drop(INDEX.index[300]))
    dataset = load_dataset(home, params(), "fund")
    assert len(dataset) == 419
    assert dataset.market.split_ratio[300, 0] == 2.0
    assert dataset.market.time[300] == FUND.index[301].to_datetime64()


def test_carried_actions_by_hand():
    bars = pd.DataFrame(
        {"split_ratio": [3.0, 1.0, 2.0, 1.0, 5.0, 9.0], "dividend": [7.0, 0.0, 0.4, 0.5, 0.1, 0.0]},
        index=daily_index(6),
    )
    kept = np.array([False, True, False, False, True, False])
    found = carry_actions(bars, kept)
    # An old share becomes 2, which pay .4 and .5 each, becomes 10, which pay .1 each: 2.8 in all.
    assert found["split_ratio"].tolist() == [1.0, 10.0]
    assert found["dividend"].tolist() == pytest.approx([0.0, (2 * 0.4 + 2 * 0.5 + 10 * 0.1) / 10])
    assert bars["split_ratio"].tolist() == [3.0, 1.0, 2.0, 1.0, 5.0, 9.0]


def test_symbols_that_trade_at_other_times_do_not_join(tmp_path):
    home = ready_home(tmp_path, index=INDEX.iloc[::2])
    with pytest.raises(DataError, match=r"FUND and INDEX: 210 of 419 bars in common"):
        load_dataset(home, params(), "fund")


def test_before_the_stages_have_run_each_error_names_the_next_command(tmp_path):
    with pytest.raises(DataError, match="no validated bars of FUND yet; run `ratchet ingest"):
        load_dataset(Home(tmp_path), params(), "minutes")
    write_whole(validated_path(Home(tmp_path), "FUND"), parquet_bytes(FUND))
    with pytest.raises(DataError, match=r"no features of FUND yet; run `dvc repro`"):
        load_dataset(Home(tmp_path), params(), "stock")
    with pytest.raises(UnknownAgent, match="did you mean 'fund'"):
        load_dataset(Home(tmp_path), params(), "fond")


def test_features_of_other_settings_are_refused(tmp_path):
    home = ready_home(tmp_path)
    with pytest.raises(DataError, match="made with other settings"):
        load_dataset(home, params(features={"anchor_years": 3}), "stock")


def test_features_of_older_bars_are_refused(tmp_path):
    home = ready_home(tmp_path)
    write_whole(validated_path(home, "FUND"), parquet_bytes(FUND.iloc[:-1]))
    with pytest.raises(DataError, match="FUND: features and validated bars differ"):
        load_dataset(home, params(), "stock")


def test_an_altered_feature_file_is_refused(tmp_path):
    home = ready_home(tmp_path)
    path = features_path(home, "FUND")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptFile, match=r"FUND.parquet: is not what `featurize` wrote"):
        load_dataset(home, params(), "stock")
    path.with_suffix(".json").write_text("{")
    with pytest.raises(CorruptFile, match=r"FUND.json: cannot be read"):
        load_dataset(home, params(), "stock")
