"""A worker whose agents decide every five seconds on ticks of IBKR: trades in, orders out."""

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fake_tws import Request
from test_serving_ibkr_live import AGENTS, BEGUN, OPENED, Market, differences, market
from test_serving_ibkr_ticks import say

from serving.ledger import rows

START = OPENED + timedelta(minutes=BEGUN)


@dataclass
class Tape:
    """What is traded, and who lived through it."""

    found: Market
    volume: float = 50_000.0

    def opens(self) -> None:
        """The first word on each subscription: an old price, and the day's volume so far."""
        tws = self.found.remote.tws
        self.found.until("tickers", lambda: any(one.tickers for one in tws.connections))
        self._say(77.0)

    def part(self, number: int) -> None:
        """Let a share be traded in a part, wait until both sleeves have decided at its end."""
        found, begins = self.found, START + timedelta(seconds=5 * number)
        if number and not number % 12:
            found.minute(BEGUN + number // 12)
        found.at = begins + timedelta(seconds=1)
        price = 100.0 + round(abs(number % 20 - 10) / 20.0, 2)
        found.remote.do(lambda tws: tws.exchange.prices.update(AAPL=price))

        self.volume += 100.0
        self._say(price)
        heard = found.feed._ticks._newest
        found.until("trade", lambda: heard.get("AAPL") == found.at)  # and its time was read
        found.at = begins + timedelta(seconds=5)

        def lived() -> bool:
            books = [one.agent for one in found.read(rows.Equity) if one.bar_time == begins]
            unsure = [one for one in found.read(rows.Order) if one.status == "intended"]
            return sorted(books) == sorted(AGENTS) and not unsure

        found.until(f"part {number}", lived)

    def _say(self, price: float) -> None:
        """Tell a trade and wait until the day's volume was heard."""
        volume = self.found.feed._ticks._volume
        say(self.found.remote, price, 100.0, self.volume)
        self.found.until("tick", lambda: volume.get("AAPL") == self.volume)

    def told(self, words: str) -> bool:
        return any(words in f"{e.kind}: {e.detail}" for e in self.found.read(rows.RiskEvent))


def test_agents_trade_on_ticks_and_order_nothing_while_there_are_none(tmp_path: Path) -> None:
    with market(tmp_path) as found:
        found.decide = "5s"
        tape = Tape(found)
        with found.trading():
            tape.opens()
            for number in range(14):
                tape.part(number)
            before = len(found.exchange.orders)
            found.remote.do(lambda tws: tws.announce(1100))
            asked = found.remote.tws.count(Request.MARKET_DATA)
            found.remote.do(lambda tws: tws.announce(1101))
            found.until("tickers", lambda: found.remote.tws.count(Request.MARKET_DATA) > asked)
            heard = found.feed._ticks._slicers.values()
            found.until("hearing", lambda: all(one.hears for one in heard))
            for minute in (2, 3):  # bars go on, and nobody tells trades
                found.minute(BEGUN + minute)
                found.until("minutes", found.subscribed)
            found.until("word of it", lambda: tape.told("feed stale: AAPL: no trade was heard"))
            assert len(found.exchange.orders) == before
            tape.opens()
            for number in range(37, 44):
                tape.part(number)
            found.until("end", lambda: tape.told("feed back: AAPL: trades are heard again"))
        assert len(found.exchange.orders) > before > 6
        decided = {one.bar_time for one in found.read(rows.Intent)}
        silent = range(14, 37)
        assert not decided & {START + timedelta(seconds=5 * number) for number in silent}
        assert differences(found) == []
        joined(found)


def joined(found: Market) -> None:
    """Follow every order from the broker to its decision, by the ids of log and ledger."""
    log = [json.loads(line) for line in (found.home.logs / "worker.jsonl").read_text().splitlines()]
    closes = {(one["agent"], one["bar_time"]): one for one in log if one["message"] == "close"}
    intents = {one["order_ref"]: one for one in log if one["message"] == "intent"}
    fills = [one["order_ref"] for one in log if one["message"] == "fill"]
    decisions = {(d.agent, d.bar_time.isoformat()): d for d in found.read(rows.Decision)}
    assert {order.ticket.order_ref for order in found.exchange.orders.values()} == set(intents)
    assert fills == [one.order_ref for one in found.read(rows.Fill)]
    assert len(fills) > 6
    for ref, intent in intents.items():
        key = intent["agent"], intent["bar_time"]
        assert closes[key]["order_ref"] == ref
        assert closes[key]["version"] == decisions[key].model_version
        assert closes[key]["action"] == decisions[key].action
