"""A feature set that knows the future is refused before it is written, on the bars it could see."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from features_kit import daily_index, intraday_index, params, random_bars, spec
from test_pipelines_featurize import home_with

from core.errors import ConfigError, FutureLeak
from features.spec import FeatureSpec
from pipelines import feature_proof, featurize
from pipelines.feature_proof import CUTS, cuts_in, require_honest_features
from pipelines.featurize import features_path

DAILY = random_bars(daily_index(700), 5)
MINUTES = random_bars(intraday_index(30, 15), 6)
CLOSED = pd.Series(np.linspace(12.0, 30.0, 700), index=DAILY.index)


def own(name: str, interval: str = "1d") -> FeatureSpec:
    return spec(interval, indicators=("return_1", f"own_features:{name}", "rsi_14"))


def test_ratchets_own_columns_know_nothing_of_the_future() -> None:
    require_honest_features("ATLAS", DAILY, spec("1d", vix=True), CLOSED)
    require_honest_features("ATLAS-15m", MINUTES, spec("15m"))
    require_honest_features("ATLAS", DAILY, own("honest"))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("tomorrow", "changed"),
        ("centred", "changed"),
        ("filled_from_the_future", "changed"),
        ("tomorrows_body", "put in another order"),
        ("how_long_it_lasts", "taken away"),
    ],
)
@pytest.mark.parametrize(("bars", "interval"), [(DAILY, "1d"), (MINUTES, "15m")], ids="dm")
def test_a_column_that_knows_the_future_is_named(
    name: str, how: str, bars: pd.DataFrame, interval: str
) -> None:
    with pytest.raises(FutureLeak, match=f"features of ATLAS: own_features:{name} knows .* {how}"):
        require_honest_features("ATLAS", bars, own(name, interval))


def test_a_vix_of_tomorrow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    build = feature_proof.build_table

    def early(bars, spec, interval, vix):  # type: ignore[no-untyped-def]
        return build(bars, spec, interval, vix.shift(-1))

    monkeypatch.setattr(feature_proof, "build_table", early)
    with pytest.raises(FutureLeak, match=r"vix_level, .* know the future"):
        require_honest_features("ATLAS", DAILY, spec("1d", vix=True), CLOSED)


def test_a_column_of_chance_is_refused_for_what_it_is() -> None:
    with pytest.raises(ConfigError, match="own_features:by_chance of the same bars differ each"):
        require_honest_features("ATLAS", DAILY, own("by_chance"))


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 40])
def test_few_bars_are_proved_as_far_as_they_go(rows: int) -> None:
    require_honest_features("ATLAS", DAILY.iloc[:rows], own("honest"))
    if rows == 40:  # a leak among as few is found
        with pytest.raises(FutureLeak, match="own_features:tomorrow"):
            require_honest_features("ATLAS", DAILY.iloc[:rows], own("tomorrow"))


def test_cuts_have_bars_behind_them_and_no_even_distance() -> None:
    index = daily_index(252)
    rows = [int(index.get_loc(cut)) for cut in cuts_in(index)]
    assert rows[-1] == 250
    assert len(set(np.diff(rows))) == len(rows) - 1 == CUTS - 1


def test_a_year_that_has_just_begun_is_not_the_one_that_is_looked_at() -> None:
    begun = DAILY.loc[:"2002-01-05"]
    assert begun.index[-1].year == 2002
    with pytest.raises(FutureLeak, match=r"at or before 2001-"):
        require_honest_features("ATLAS", begun, own("tomorrow"))


def test_the_stage_writes_nothing_of_a_leaky_set(tmp_path: Path) -> None:
    home = home_with(tmp_path, AAPL=DAILY)
    leaky = params(features={"indicators": ["return_1", "own_features:tomorrow"]})
    with pytest.raises(FutureLeak, match="features of AAPL: own_features:tomorrow knows"):
        featurize.run(home, leaky, "AAPL")
    assert not features_path(home, "AAPL").exists()
    assert not features_path(home, "AAPL").with_suffix(".json").exists()
