import json
from dataclasses import replace

import pytest
from features_kit import params, spec

from core.errors import ConfigError, SpecMismatch
from features.indicators import INDICATORS, VIX_INDICATORS
from features.spec import FeatureSpec, spec_from


def test_a_spec_survives_json_with_its_hash():
    for made in (spec(), spec("15m", scaler="rolling"), spec(vix=True)):
        again = FeatureSpec.from_json(made.to_json())
        assert again == made
        assert again.sha256 == made.sha256
    assert spec().sha256 != spec(clip=4.0).sha256


def test_the_anchor_counts_years_for_days_and_days_for_minutes():
    assert spec("1d", anchor_years=3).anchor == 3
    assert spec("5m", anchor_sessions=7).anchor == 7


def test_vix_columns_join_daily_specs_only_and_only_when_wanted():
    assert spec("1d", vix=True).columns == (*INDICATORS, *VIX_INDICATORS)
    assert spec("1h", vix=True).columns == tuple(INDICATORS)
    assert spec("1d", vix=True, include_vix=False).columns == tuple(INDICATORS)
    assert spec("1d", vix=True).uses_vix
    assert not spec("1d").uses_vix


def test_look_back_counts_the_window_and_the_rolling_scaler():
    assert spec().look_back_rows == 0
    made = spec_from(
        params(features={"scaler": "rolling", "rolling_window_bars": 50}, environment={"window": 4})
    )
    assert made.look_back_rows == 3 + 49


def test_a_column_this_code_does_not_build_is_refused_by_name():
    foreign = replace(spec(), columns=("rsi_14", "moon_phase", "tide_3"))
    with pytest.raises(SpecMismatch, match="moon_phase, tide_3"):
        FeatureSpec.from_json(foreign.to_json())


def test_another_version_of_the_same_columns_is_refused():
    with pytest.raises(SpecMismatch, match=r"version 0, this Ratchet builds version 1 of rsi_14"):
        FeatureSpec.from_json(replace(spec(indicators=["rsi_14"]), version=0).to_json())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"columns": 3}'])
def test_a_broken_spec_is_one_clear_error(text):
    with pytest.raises(SpecMismatch, match="cannot be read"):
        FeatureSpec.from_json(text)


def test_a_spec_with_a_foreign_field_is_refused():
    content = json.loads(spec().to_json()) | {"colour": "red"}
    with pytest.raises(SpecMismatch, match="colour"):
        FeatureSpec.from_json(json.dumps(content))


def test_unknown_and_repeated_indicators_name_themselves():
    with pytest.raises(ConfigError, match="rsi_15"):
        spec(indicators=["rsi_14", "rsi_15"])
    with pytest.raises(ConfigError, match="rsi_14"):
        spec(indicators=["rsi_14", "rsi_14"])
