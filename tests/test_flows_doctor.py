"""Doctor: what it says of an agent's dataset."""

import json

import pytest

from core.errors import CorruptFile
from core.home import Home
from core.settings import parse_params
from flows import doctor

PARAMS = parse_params(
    {"agents": {"minute": {"symbol": "SPY", "source": "yfinance", "interval": "5m"}}}
)


def test_a_dataset_that_is_not_there_is_told_with_the_command_that_makes_it(home: Home) -> None:
    found = doctor._dataset(home, PARAMS, "minute")
    assert (found.grade, found.found) == ("note", "none of SPY")
    assert found.remedy == "ratchet ingest SPY --source yfinance --interval 5m"


def test_an_intraday_dataset_is_found_by_its_own_name(home: Home) -> None:
    folder = home.make(home.data / "features")
    (folder / "SPY.parquet").touch()
    assert doctor._dataset(home, PARAMS, "minute").grade == "note"
    (folder / "SPY-5m.parquet").touch()
    made = {"columns": ["rsi_14"], "rows": 7, "first": "2024-03-04T14", "last": "2024-03-05T14"}
    (folder / "SPY-5m.json").write_text(json.dumps(made | {"vix": "left out: daily bars only"}))
    found = doctor._dataset(home, PARAMS, "minute")
    assert found.grade == "ok"
    assert found.found == (
        "1 features of 7 bars, 2024-03-04 to 2024-03-05; VIX left out: daily bars only"
    )


def test_features_that_do_not_read_are_a_finding(home: Home) -> None:
    folder = home.make(home.data / "features")
    (folder / "SPY-5m.parquet").touch()
    (folder / "SPY-5m.json").write_text("{}")
    with pytest.raises(CorruptFile, match=r"SPY-5m\.json.*dvc repro"):
        doctor._dataset(home, PARAMS, "minute")
