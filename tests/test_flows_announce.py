"""What flows tell a person, and the command that tries the channels."""

import argparse
import logging
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import yaml
from alert_kit import Receiver, receiving

from core.home import Home
from core.settings import Params, parse_params
from flows import announce, cli, overview
from serving import switch

AGENTS = {"aapl": {"symbol": "AAPL"}}
RUN = SimpleNamespace(name="retrain-aapl", id="a1b2", parameters={"agent": "aapl", "seeds": 5})
FLOW = SimpleNamespace(name="retrain")
CRASHED = SimpleNamespace(name="Crashed", message="out of\nmemory")


@pytest.fixture
def told(home: Home, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    with receiving() as receiver:
        monkeypatch.setenv("RATCHET_ALERT_URLS", receiver.url)
        yield receiver


def write_params(home: Home, **alerts: object) -> Params:
    content = {"agents": AGENTS, "alerts": alerts}
    home.make(home.workspace)
    home.params_file.write_text(yaml.safe_dump(content))
    return parse_params(content)


def test_a_gate_that_decided_is_told(home: Home, told: Receiver) -> None:
    announce.gate(home, write_params(home), "aapl", 3, "refuse", ["Sharpe 1.66 against 1.48"])
    (message,) = told.messages
    assert message["title"] == "Ratchet info: gate aapl"
    assert "version 3: refuse; Sharpe 1.66 against 1.48" in message["message"]


def test_no_alert_tells_what_the_environment_holds_in_confidence(
    home: Home, told: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ray-0123456789")
    reason = "no answer from postgresql://me:pw1@db/x with ray-0123456789"
    announce.gate(home, write_params(home), "aapl", 3, "refuse", [reason])
    (message,) = told.messages
    assert "no answer from postgresql://me:****@db/x with ****" in message["message"]


def test_drift_is_told_unless_it_is_off(home: Home, told: Receiver) -> None:
    announce.drift(home, write_params(home, drift=False), "aapl", ["rsi_14 moved"])
    assert told.messages == []
    announce.drift(home, write_params(home), "aapl", ["rsi_14 moved"])
    assert told.titles() == ["Ratchet warning: drift aapl"]


def test_a_flow_that_crashed_is_told_with_what_is_needed(home: Home, told: Receiver) -> None:
    write_params(home)
    announce.failed(FLOW, RUN, CRASHED)
    (message,) = told.messages
    assert message["title"] == "Ratchet critical: failure aapl"
    assert "run retrain-aapl (a1b2) ended Crashed: out of memory" in message["message"]


def test_a_channel_that_is_down_harms_no_flow(
    home: Home, told: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    told.status = 500
    with caplog.at_level(logging.ERROR, "ratchet.flows"):
        announce.gate(home, write_params(home), "aapl", 3, "refuse", [])
    (record,) = [one for one in caplog.records if one.name == "ratchet.flows"]
    assert "alert not delivered: json://****: " in record.getMessage()
    assert "token-abcdef" not in record.getMessage()


def test_a_test_alert_reaches_every_channel(
    home: Home, told: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["alerts", "test"]) == 0
    assert capsys.readouterr().out == "delivered to json://****\n"
    assert "a test, sent by" in told.messages[0]["message"]
    told.status = 500
    assert cli.main(["alerts", "test"]) == 7
    assert "error: alert not delivered: json://****: " in capsys.readouterr().err


def test_without_a_channel_the_test_says_how_to_name_one(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RATCHET_ALERT_URLS", raising=False)
    assert cli.main(["alerts", "test"]) == 2
    assert "set RATCHET_ALERT_URLS, or write addresses" in capsys.readouterr().err
    assert cli.main(["alerts", "list"]) == 0
    listed = capsys.readouterr().out
    assert "channels: none" in listed
    assert "kill_switch      info" in listed


def worker(**more: object) -> dict[str, object]:
    sleeve = {
        "model_version": "3", "bar_time": "2026-03-02T21:00:00+00:00", "equity": 101_234.5,
        "drawdown": 0.012, "shares": 480.0, "pending_shares": -20.0, "risk_state": "ACTIVE",
        "action": "sell", "confidence": 0.83, "paused": False, "symbol": "AAPL",
        "rationale": "score 0.12 [rsi_14 71.2 lowers it, macd -0.4 lowers it, return_5 0.03]",
        "exposure": 0.97, "pid": 4242, "answers": True,
    }  # fmt: skip
    link = "down since 2026-03-02T20:58:00+00:00: link down: no answer to the time within 5 s"
    alert = {"event": "broker_lost", "level": "critical", "component": "broker link", "agent": "",
             "time": "2026-03-02T20:58:00+00:00", "detail": "link down: frozen"}  # fmt: skip
    return {
        "phase": "running", "pid": 4200, "session": 7, "feed": "yfinance", "broker": "ibkr",
        "updated_at": "2026-03-02T21:00:01+00:00", "links": {"broker": link, "feed": "up"},
        "metrics": "http://127.0.0.1:9464/metrics", "alerts": [alert], "agents": {"aapl": sleeve},
    } | more  # fmt: skip


def test_the_status_says_it_all_in_80_columns() -> None:
    from rich.console import Console

    found = {
        "home": "/home/trader/ratchet/.ratchet", "services": {}, "worker": worker(),
        "watchdog": 4100, "kill_switch": "by an operator",
        "agents": {"aapl": {"symbol": "AAPL", "versions": {"Production": 3, "Challenger": 4},
                            "retraining": True},
                   "tna": {"symbol": "TNA", "versions": {}, "retraining": False}},
    }  # fmt: skip
    console = Console(width=80, highlight=False)
    with console.capture() as captured:
        console.print(overview.tables(found))
    shown = captured.get()
    assert max(map(len, shown.splitlines())) <= 80
    words = " ".join(shown.split())
    for fact in (
        "worker running, session 7, process 4200", "watchdog process 4100",
        "KILLED by an operator; ratchet release ends it", "broker ibkr, down since",
        "feed yfinance, up",
        "AAPL: Production 3, Challenger 4, retraining", "TNA: none yet", "process 4242",
        "480 shares (-20 ordered), 97% exposed", "sell, confidence 0.83: score 0.12 [rsi_14",
        "critical broker lost, 2026-03-02T20:58:00Z: link down: frozen",
    ):  # fmt: skip
        assert fact in words
    # A line is broken where the text column ends, not into a narrow strip.
    assert len(shown.splitlines()) < 24


def test_status_for_programs_has_the_same(home: Home) -> None:
    params = write_params(home)
    assert overview.of(home, params)["kill_switch"] == ""
    switch.press(home, "ann", "a fire", datetime(2026, 3, 2, 15, tzinfo=UTC))
    found = overview.of(home, params)  # whether anybody trades or not
    assert "ann" in found["kill_switch"]
    assert "a fire" in found["kill_switch"]
    assert found["watchdog"] is None
    assert set(found["worker"]) >= {"phase", "links", "alerts", "metrics", "agents"}
    assert argparse.Namespace(**found["worker"]).phase == "never started"
