"""Doctor: what it says of an agent's dataset."""

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
    assert doctor._dataset(home, PARAMS, "minute").grade == "ok"
