"""What the worker's numbers say of each row and event, by hand."""

import socket
import urllib.request
from datetime import UTC, datetime
from threading import enumerate as threads

import pytest

from core.errors import ConfigError
from serving.ledger import rows
from serving.metrics import Meters, Page, port_of

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)  # 1,772,452,800 s after 1970


def value(meters: Meters, name: str, **labels: str) -> float | None:
    return meters.registry.get_sample_value(f"ratchet_{name}", labels)


def book(shares: float, equity: float, risk_state: str = "ACTIVE") -> rows.Equity:
    return rows.Equity(
        session=1, agent="aapl", bar_time=NOON, symbol="AAPL", cash=0.0, shares=shares, close=50.0,
        equity=equity, drawdown=0.25, risk_state=risk_state,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "equity", "exposure"), [(10.0, 2000.0, 0.25), (-10.0, 2000.0, -0.25), (0.0, 0.0, 0)]
)
def test_the_books_of_a_close_in_numbers(shares: float, equity: float, exposure: float) -> None:
    meters = Meters()
    meters.see(book(shares, equity))
    assert value(meters, "equity", agent="aapl") == equity
    assert value(meters, "exposure", agent="aapl") == exposure
    assert value(meters, "drawdown", agent="aapl") == 0.25
    assert value(meters, "bar_time_seconds", agent="aapl") == 1_772_452_800.0


@pytest.mark.parametrize(
    ("state", "number"), [("ACTIVE", 0), ("REDUCING", 1), ("HALTED", 2), ("of a later day", -1)]
)
def test_a_risk_state_is_a_number(state: str, number: int) -> None:
    meters = Meters()
    meters.see(book(1.0, 100.0, state))
    assert value(meters, "risk_state", agent="aapl") == number


def test_decisions_orders_and_fills_are_counted_by_what_they_are() -> None:
    meters = Meters()
    common = {"session": 1, "agent": "aapl", "bar_time": NOON, "symbol": "AAPL"}
    for action in ("buy", "hold", "hold"):
        meters.see(rows.Decision(
            **common, model_version="1", bundle_sha256="b", observation=b"",
            observation_sha256="", action=action, weight=0.5, score=0.5, confidence=0.5,
            rationale={},
        ))  # fmt: skip
    for leg in ("entry.1", "entry", "stop.2"):  # a part of an order counts as its leg
        meters.see(rows.Intent(
            **common, order_ref=leg, leg=leg, model_version="1", shares=1.0, kind="stop"
        ))  # fmt: skip
    meters.see(rows.Fill(
        **common, exec_id="e", order_ref="r", leg="target.1", shares=1.0, price=50.0,
        commission=0.0, slippage=0.0,
    ))  # fmt: skip
    for action, number in (("buy", 1.0), ("hold", 2.0)):
        assert value(meters, "decisions_total", agent="aapl", action=action) == number
    for leg, number in (("entry", 2.0), ("stop", 1.0), ("entry.1", None)):
        assert value(meters, "orders_total", agent="aapl", leg=leg) == number
    assert value(meters, "fills_total", agent="aapl", leg="target") == 1.0
    assert value(meters, "equity", agent="aapl") is None


def test_the_version_that_decides_is_a_number_or_left_as_it_was() -> None:
    meters = Meters()
    for version in ("12", "candidate"):
        meters.see(rows.AliasChange(
            session=1, agent="aapl", alias="Production", model_version=version,
            bundle_sha256="b", previous_version="", bar_time=None,
        ))  # fmt: skip
        assert value(meters, "model_version", agent="aapl") == 12.0


def test_a_row_that_is_no_number_changes_none() -> None:
    meters = Meters(["aapl"])
    before = [family.samples for family in meters.registry.collect() if "ratchet" in family.name]
    meters.see(rows.SessionEvent(session=1, kind="agent died", pid=1, detail=""))
    after = [family.samples for family in meters.registry.collect() if "ratchet" in family.name]
    assert after == before


@pytest.mark.parametrize(
    ("kind", "stalls", "refused"),
    [
        ("agent hangs", 1.0, 0.0),
        ("agent died", 1.0, 0.0),
        ("agent absent", 1.0, 0.0),
        ("policy failed", 1.0, 0.0),
        ("signal refused", 0.0, 1.0),
        ("order refused", 0.0, 0.0),
    ],
)
def test_every_event_is_counted_and_an_agent_in_trouble_twice(
    kind: str, stalls: float, refused: float
) -> None:
    meters = Meters(["aapl"])
    meters.see(rows.RiskEvent(session=1, agent="aapl", bar_time=NOON, kind=kind, detail=""))
    assert value(meters, "events_total", agent="aapl", kind=kind) == 1.0
    assert value(meters, "stalls_total", agent="aapl") == stalls
    assert value(meters, "signals_refused_total", agent="aapl") == refused
    assert value(meters, "link_up", link="broker") == 1.0


@pytest.mark.parametrize(
    ("link", "other", "down", "up"),
    [("broker", "feed", "link down", "link up"), ("feed", "broker", "feed stale", "feed back")],
)
def test_each_link_is_up_until_it_is_down_and_up_when_it_is_back(
    link: str, other: str, down: str, up: str
) -> None:
    meters = Meters()
    found = []
    for kind in ("", down, up):
        meters.event("", kind)
        found.append((value(meters, "link_up", link=link), value(meters, "link_up", link=other)))
    assert found == [(1.0, 1.0), (0.0, 1.0), (1.0, 1.0)]


def test_how_long_a_bar_took_falls_into_its_bucket() -> None:
    meters = Meters()
    meters.latency("aapl", 0.0015)
    found = [value(meters, "bar_to_order_seconds_bucket", agent="aapl", le=le)
             for le in ("0.0005", "0.001", "0.002", "5.0")]  # fmt: skip
    assert found == [0.0, 0.0, 1.0, 1.0]


def test_what_has_not_happened_yet_is_a_zero_of_every_agent() -> None:
    meters = Meters(["aapl", "spy"])
    for agent in ("aapl", "spy"):
        for action in ("buy", "sell", "hold"):
            assert value(meters, "decisions_total", agent=agent, action=action) == 0.0
        for name in ("orders_total", "fills_total"):
            assert value(meters, name, agent=agent, leg="entry") == 0.0
        for name in ("stalls_total", "signals_refused_total", "bar_to_order_seconds_count"):
            assert value(meters, name, agent=agent) == 0.0
    assert value(meters, "watch_dropped_total") == 0.0
    assert value(meters, "loop_silence_seconds") == 0.0


def test_an_alert_is_counted_by_what_became_of_it() -> None:
    meters = Meters()
    for outcome in ("sent", "failed", "sent"):
        meters.alert("stalled", outcome)
    assert value(meters, "alerts_total", event="stalled", outcome="sent") == 2.0
    assert value(meters, "alerts_total", event="stalled", outcome="failed") == 1.0


def test_the_page_shows_the_numbers_and_the_process_until_it_is_closed() -> None:
    meters = Meters(["aapl"])
    before = set(threads())
    page = Page(meters, 0)
    serving = set(threads()) - before
    try:
        assert page.address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(page.address, timeout=60.0) as answer:
            text = answer.read().decode()
    finally:
        page.close()
    assert 'ratchet_stalls_total{agent="aapl"} 0.0' in text
    assert "process_resident_memory_bytes" in text
    assert "_created" not in text  # twice as many series, and no more told
    assert serving
    assert not [one for one in serving if one.is_alive()]
    port = int(page.address.rpartition(":")[2].partition("/")[0])
    with socket.socket() as again:  # it is free again
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
        again.listen()


@pytest.mark.parametrize(
    ("named", "port"),
    [("", 9464), ("any", 0), ("0", None), ("1", 1), ("65535", 65_535), ("65536", "refused"),
     ("-1", "refused")],
)  # fmt: skip
def test_the_port_is_what_the_environment_says(named: str, port: int | str | None) -> None:
    environment = {"RATCHET_METRICS_PORT": named}
    if port == "refused":
        with pytest.raises(ConfigError, match=f"RATCHET_METRICS_PORT={named}: expected a port"):
            port_of(environment)
    else:
        assert port_of(environment) == port
