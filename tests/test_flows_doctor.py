"""Doctor: what it says of an agent's dataset, and of TWS."""

import json

import pytest
from fake_tws import FakeTws, in_thread

from core.errors import BrokerUnavailable, CorruptFile
from core.home import Home
from core.settings import parse_params
from flows import doctor
from serving.brokers.ibkr import Access
from serving.brokers.ibkr.probe import probe

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


@pytest.mark.parametrize(
    ("account", "grade", "words"),
    [
        ("DU1234567", "ok", "account DU*****67 (paper); trades as client 7"),
        ("U7654321", "bad", "TRADING_MODE=paper, but U7****21 is a live account"),
    ],
)
def test_doctor_says_who_is_logged_in_at_the_gateway(
    account: str, grade: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tws = FakeTws()
    tws.exchange.accounts = (account,)
    with in_thread(tws) as remote:
        monkeypatch.setenv("IB_PORT", str(remote.port))
        monkeypatch.setenv("IB_CLIENT_ID", "7")
        (found,) = doctor._gateway()
    assert found.grade == grade
    assert words in found.found
    assert 7 not in {client for client, _ in tws.seen}, "its id is that of the worker that trades"


def test_a_gateway_that_is_not_there_is_worth_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    with in_thread(FakeTws()) as remote:
        port = remote.port
    monkeypatch.setenv("IB_PORT", str(port))
    (found,) = doctor._gateway()
    assert (found.grade, found.found) == ("note", f"nothing listens at 127.0.0.1:{port}")


def test_a_gateway_that_says_nothing_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    tws = FakeTws()
    tws.faults.hang_handshake = True
    with in_thread(tws) as remote:
        access = Access(port=remote.port)
        with pytest.raises(BrokerUnavailable, match=r"does not answer within 0\.2 s; log in"):
            probe(access, 0.2)
