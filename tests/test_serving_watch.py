"""The watch: metrics and alerts beside the trading, which never waits for either."""

import logging
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import serving_kit as world
from alert_kit import Receiver, receiving, until
from prometheus_client.parser import text_string_to_metric_families

from core.errors import ConfigError
from core.home import Home
from core.settings import Alerts, parse_params
from serving.channels import Channels
from serving.ledger import rows
from serving.metrics import Meters, Page, port_of
from serving.secrets import Secret, masked
from serving.watch import Watch
from serving.worker import Worker

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
USUAL = Alerts()


def event(kind: str, detail: str = "", agent: str = "") -> rows.RiskEvent:
    return rows.RiskEvent(session=1, agent=agent, bar_time=NOW, kind=kind, detail=detail)


def book(drawdown: float) -> rows.Equity:
    return rows.Equity(
        session=1, agent="aapl", bar_time=NOW, symbol="AAPL", cash=500.0, shares=10.0, close=50.0,
        equity=1000.0, drawdown=drawdown, risk_state="ACTIVE",
    )  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@contextmanager
def watched(receiver: Receiver, wanted: Alerts = USUAL) -> Iterator[tuple[Watch, Meters, Clock]]:
    meters, clock = Meters(["aapl"]), Clock()
    channels = Channels([Secret(receiver.url)])
    watch = Watch(wanted, meters, channels, now=lambda: NOW, clock=clock)
    watch.start()
    try:
        yield watch, meters, clock
    finally:
        receiver.held.set()
        watch.stop()


def sample(meters: Meters, name: str, **labels: str) -> float | None:
    return meters.registry.get_sample_value(name, labels)


def test_a_lost_link_is_an_alert_at_once_again_and_over_when_it_is_back() -> None:
    with receiving() as receiver, watched(receiver) as (watch, meters, clock):
        watch.see(event("link down", "no answer to the time within 5 s: frozen"))
        until(lambda: len(receiver.messages) == 1)
        told = receiver.messages[0]
        assert told["title"] == "Ratchet critical: broker lost"
        for fact in ("frozen", "time: 2026-03-02T15:00:00+00:00", "component: broker link",
                     "event: broker_lost (critical)", "session: 1", "ratchet status"):  # fmt: skip
            assert fact in told["message"]
        assert told["type"] == "failure"
        assert [one.event for one in watch.open.newest_first()] == ["broker_lost"]
        assert sample(meters, "ratchet_link_up", link="broker") == 0.0
        clock.seconds = 300.0
        until(lambda: len(receiver.messages) == 2)
        watch.see(event("link up", "127.0.0.1:4002"))
        until(lambda: len(receiver.messages) == 3)
        assert receiver.titles()[2] == "Ratchet over: broker lost"
        assert watch.open.newest_first() == []
        assert sample(meters, "ratchet_link_up", link="broker") == 1.0


@pytest.mark.parametrize(("kind", "detail", "title"), [
    ("risk state", "REDUCING -> HALTED at a drawdown of 30.1%", "critical: risk state"),
    ("order refused", "ratchet-1: margin", "warning: order refused"),
    ("agent hangs", "silent for 10 s; ended", "warning: stalled"),
    ("kill switch", "by an operator", "critical: kill switch"),
    ("feed stale", "AAPL: newest bar is …", "warning: feed stale"),
    ("signal refused", "late", "warning: signal refused"),
    ("alias refused", "version 3", "warning: model"),
    ("nobody knows this kind", "yet", "warning: other"),
])  # fmt: skip
def test_what_a_person_must_know_is_told(kind: str, detail: str, title: str) -> None:
    with receiving() as receiver, watched(receiver) as (watch, _, _):
        watch.see(event("partial fill", "routine, and told to nobody", "aapl"))
        watch.see(event(kind, detail, "aapl"))
        until(lambda: bool(receiver.messages))
        assert receiver.titles() == [f"Ratchet {title} aapl"]
        assert f"{kind}: {detail}" in receiver.messages[0]["message"]


def test_each_step_of_a_drawdown_is_told_once_and_its_end() -> None:
    with receiving() as receiver, watched(receiver, Alerts(quiet_seconds=0.0)) as (watch, _, _):
        for drawdown in (0.01, 0.06, 0.07, 0.12, 0.11, 0.25, 0.06, 0.01):
            watch.see(book(drawdown))
        until(lambda: len(receiver.messages) == 4)
        kinds = [(m["title"].partition(":")[0], m["message"].split()[0]) for m in receiver.messages]
        assert kinds == [("Ratchet warning", "6.0%"), ("Ratchet warning", "12.0%"),
                         ("Ratchet critical", "25.0%"), ("Ratchet over", "1.0%")]  # fmt: skip


def test_a_slow_bar_and_a_silent_loop_are_told() -> None:
    with receiving() as receiver, watched(receiver) as (watch, meters, clock):
        watch.timed("aapl", 0.9)
        watch.timed("aapl", 1.5)
        until(lambda: len(receiver.messages) == 1)
        assert "1500 ms from bar to order" in receiver.messages[0]["message"]
        assert sample(meters, "ratchet_bar_to_order_seconds_count", agent="aapl") == 2.0
        watch.beat()
        clock.seconds = 31.0
        until(lambda: len(receiver.messages) == 2)
        assert "no sign of life for 31 s" in receiver.messages[1]["message"]
        watch.beat()
        until(lambda: len(receiver.messages) == 3)
        assert receiver.titles()[2] == "Ratchet over: stalled"


def test_an_event_that_is_off_is_counted_but_not_sent() -> None:
    off = parse_params({"agents": {}, "alerts": {"order_refused": False}}).alerts
    assert off.order_refused == "off"  # as YAML reads a bare `off`
    with receiving() as receiver, watched(receiver, off) as (watch, meters, _):
        watch.see(event("order refused", "margin", "aapl"))
        watch.see(event("kill switch", "by an operator"))
        until(lambda: bool(receiver.messages))
        assert receiver.titles() == ["Ratchet critical: kill switch"]
        counted = sample(meters, "ratchet_events_total", agent="aapl", kind="order refused")
        assert counted == 1.0


def test_a_channel_that_hangs_holds_up_nobody_and_what_is_dropped_is_counted() -> None:
    with receiving() as receiver:
        receiver.held.clear()
        with watched(receiver, Alerts(quiet_seconds=0.0)) as (watch, meters, _):
            for number in range(150):
                watch.see(event("order refused", str(number), f"agent-{number}"))
            labels = {"event": "order_refused", "outcome": "dropped"}
            # One is being sent, a hundred wait, the others are dropped; the watch goes on.
            until(lambda: (sample(meters, "ratchet_alerts_total", **labels) or 0.0) >= 49.0)
            watch.see(book(0.01))
            until(lambda: sample(meters, "ratchet_equity", agent="aapl") == 1000.0)
            assert receiver.messages == []


def test_a_channel_that_refuses_is_named_without_its_secret(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.channels.RETRY_SECONDS", 0.0)
    with receiving() as receiver, caplog.at_level(logging.INFO):
        receiver.status = 500
        with watched(receiver) as (watch, meters, _):
            watch.see(event("kill switch", "by an operator"))
            labels = {"event": "kill_switch", "outcome": "failed"}
            until(lambda: sample(meters, "ratchet_alerts_total", **labels) == 1.0)
        assert receiver.paths == ["/token-abcdef"] * 2  # tried again once
    said = [record for record in caplog.records if record.message == "alert failed"]
    assert len(said) == 1
    assert "json://****" in said[0].__dict__["reason"]
    assert "500" in said[0].__dict__["reason"]
    logged = [str(record.__dict__) for record in caplog.records]
    for secret in ("s3cretword", "token-abcdef"):
        assert not [text for text in logged if secret in text]


def test_a_secret_does_not_show_itself() -> None:
    one = Secret("tgram://123456789:AAFtoken/-100200300")
    assert repr(one) == str(one) == f"{one}" == "tgram://****"
    text = "POST https://api.telegram.org/bot123456789:AAFtoken/sendMessage to -100200300"
    assert masked(text, [one]) == "POST https://api.telegram.org/bot****:****/sendMessage to ****"
    assert "AAFtoken" not in repr(Channels([Secret("json://127.0.0.1:1/AAFtoken")]))


def test_a_file_of_secrets_is_for_its_owner_alone(tmp_path: Path) -> None:
    home, file = Home(tmp_path), tmp_path / "alerts.urls"
    assert Channels.of(home, {}) is None
    file.write_text("# mine\njson://127.0.0.1:1/one\n\njson://127.0.0.1:1/two\n")
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=r"alerts\.urls: mode 640, .*chmod 600"):
        Channels.of(home, {})
    file.chmod(0o600)
    found = Channels.of(home, {})
    assert found is not None
    assert len(found) == 2
    with pytest.raises(ConfigError, match=r"RATCHET_ALERT_FILE=.*nowhere: no such file"):
        Channels.of(home, {"RATCHET_ALERT_FILE": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigError, match=r"address 2 \(nonsense://\*\*\*\*\)") as told:
        Channels.of(home, {"RATCHET_ALERT_URLS": "json://127.0.0.1:1/a nonsense://key-12345"})
    assert "key-12345" not in str(told.value)


def test_the_ports_of_the_page() -> None:
    assert port_of({}) == 9464
    assert port_of({"RATCHET_METRICS_PORT": "0"}) is None
    assert port_of({"RATCHET_METRICS_PORT": "any"}) == 0
    for wrong in ("high", "70000"):
        with pytest.raises(ConfigError, match=f"RATCHET_METRICS_PORT={wrong}: expected a port"):
            port_of({"RATCHET_METRICS_PORT": wrong})


def test_the_page_is_on_loopback_only() -> None:
    page = Page(Meters(), 0)
    try:
        assert page.address.startswith("http://127.0.0.1:")
    finally:
        page.close()


def test_a_port_that_is_taken_is_a_warning_and_trading_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = world.params()
    shelf, home = world.shelf_with_both(tmp_path / "shelf", settings), Home(tmp_path / "home")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        watch = Watch(settings.alerts, Meters(), port=port)
        worker = Worker(home, settings, ["solo"], world.feed(), shelf=shelf, environment={},
                        watch=watch)  # fmt: skip
        result = worker.run()
    assert result.sleeves[0].bars == world.PAPER_BARS
    (warned,) = [record for record in caplog.records if record.message == "no metrics page"]
    assert f"port {port}" in warned.__dict__["reason"]


def test_the_numbers_of_a_session_are_those_of_its_ledger(tmp_path: Path) -> None:
    from serving.ledger import LedgerReader

    settings = world.params()
    shelf, home = world.shelf_with_both(tmp_path / "shelf", settings), Home(tmp_path / "home")
    meters = Meters(["solo", "pair"])
    watch = Watch(settings.alerts, meters)
    Worker(home, settings, ["solo", "pair"], world.feed(), shelf=shelf, environment={},
           watch=watch).run()  # fmt: skip
    with LedgerReader(home.ledger) as ledger:
        for agent in ("solo", "pair"):
            last = ledger.rows(rows.Equity, agent=agent)[-1]
            assert sample(meters, "ratchet_equity", agent=agent) == last.equity
            assert sample(meters, "ratchet_drawdown", agent=agent) == last.drawdown
            held = last.shares * last.close / last.equity
            assert sample(meters, "ratchet_exposure", agent=agent) == held
            assert sample(meters, "ratchet_risk_state", agent=agent) == 0.0
            decided = [sample(meters, "ratchet_decisions_total", agent=agent, action=action)
                       for action in ("buy", "sell", "hold")]  # fmt: skip
            assert sum(filter(None, decided)) == len(ledger.rows(rows.Decision, agent=agent))
            for name, kind in (("orders", rows.Intent), ("fills", rows.Fill)):
                legs = [sample(meters, f"ratchet_{name}_total", agent=agent, leg=leg) or 0.0
                        for leg in ("entry", "stop", "target")]  # fmt: skip
                assert sum(legs) == len(ledger.rows(kind, agent=agent))
            timed = sample(meters, "ratchet_bar_to_order_seconds_count", agent=agent)
            assert timed == world.PAPER_BARS


def test_a_watch_that_breaks_does_not_break_the_trading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Meters, row: rows.Row) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Meters, "see", broken)
    settings = world.params()
    shelf, home = world.shelf_with_both(tmp_path / "shelf", settings), Home(tmp_path / "home")
    worker = Worker(home, settings, ["solo"], world.feed(), shelf=shelf, environment={})
    assert worker.run().sleeves[0].bars == world.PAPER_BARS


def scraped(address: str) -> dict[str, float]:
    with urllib.request.urlopen(address, timeout=10.0) as page:
        text = page.read().decode()
    return {
        f"{one.name}{{{','.join(one.labels.values())}}}": one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
