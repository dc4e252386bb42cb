"""A month of minutes, ten agents and random faults: is memory flat, do the books agree?

    python -m bench.soak [--sessions 21] [--agents 10] [--seed 1] [--trace]

A worker with ten agents trades 1-minute bars of ten stocks through ``ib_async`` and the fake TWS of
the tests, each in a process of its own, as fast as it can. The agents decide by lot; now and then
the link drops, IBKR is lost and found, an order is rejected, words come twice or not at all. At
the end the ledger is held against the broker's books, and the memory of the worker's process
must be flat (``bench.weighing``); otherwise the exit code is 1. ``--trace`` prints after each
session which places in the code hold more than before; it is three times slower, and weighs more.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import minutes_kit as kit
from fake_tws import FakeTws, Once, Point, Reply

from bench.weighing import Held, Weight, Witness, is_flat, picture, verdict, weigh
from core.home import Home
from serving.brokers.ibkr.book import base_of
from serving.ledger import LedgerReader, rows

HISTORY_SESSIONS = 2
SHARE = 0.03  # of the bars at which an agent asks for another weight
FAULTS_EVERY = 60  # bars, on average
LIMITS = {"stop_loss": 0.01, "take_profit": 0.01, "reduce_drawdown": None, "halt_drawdown": None}
FAULTS = {
    "link drops": lambda tws: tws.drop(),
    "link drops when an order comes": lambda tws: tws.faults.drop_at(Point.ORDER_ACCEPTED),
    "link drops when a cancel comes": lambda tws: tws.faults.drop_at(Point.CANCEL_ACCEPTED),
    "link drops before a fill": lambda tws: tws.faults.drop_at(Point.BEFORE_FILL),
    "order rejected": lambda tws: tws.faults.once(Once.REJECT),
    "no permId at first": lambda tws: tws.faults.once(Once.NO_PERM_ID),
    "live order called cancelled": lambda tws: tws.faults.once(Once.PRESET),
    "fill crosses a cancel": lambda tws: tws.faults.once(Once.FILL_ON_CANCEL),
    "executions twice": lambda tws: tws.faults.doubled.add(Reply.EXECUTION),
    "IBKR lost and found": lambda tws: (tws.announce(1100), tws.announce(1102)),
}


@dataclass(frozen=True, slots=True)
class Soaked:
    """What a soak came to."""

    bars: int  # of each agent
    faults: Counter[str]
    weights: list[Weight]  # at the beginning of each session
    orders: int
    fills_by: Counter[str]  # symbol
    wrong: list[str]
    seconds: float

    @property
    def fills(self) -> int:
        return self.fills_by.total()


def settings(agents: int) -> kit.Params:
    return kit.settings(
        agents, account={"cash": kit.CASH, "no_trade_band": 0.0}, risk=LIMITS,
        features={"indicators": ["return_1"], "anchor_sessions": 2},
        paper={"alias_poll_seconds": 0.5, "snapshot_seconds": 5.0},
    )  # fmt: skip


def frames_of(agents: int, bars: int) -> tuple[dict[str, Any], int]:
    """Return every stock's bars, and the place of the first that is traded."""
    first = HISTORY_SESSIONS * kit.SESSION_BARS
    sessions = HISTORY_SESSIONS + -(-bars // kit.SESSION_BARS)
    made = {
        symbol: kit.minute_bars(seed, sessions).iloc[: first + bars]
        for seed, symbol in enumerate(kit.symbols(agents))
    }
    return made, first


def work(root: Path, port: int, control: Any) -> None:
    """The worker's process."""
    agents, bars, share, trace = control.recv()
    frames, first = frames_of(agents, bars)
    chosen = settings(agents)
    bundle = kit.plain_bundle(chosen)

    def seat(name: str, loaded: Any, signal: Any, traded: Any) -> kit.Dice:
        return kit.Dice(name, loaded, traded, share)

    witness = Witness(control, first, kit.SESSION_BARS, trace)
    kit.make_worker(root, port, witness, chosen, frames, first, bundle, seat).run()
    control.send("over")


def soak(
    agents: int,
    bars: int,
    seed: int,
    share: float = SHARE,
    say: Any = sys.stdout.write,
    trace: bool = False,
) -> Soaked:
    """Trade so many minutes; return what came of it."""
    frames, first = frames_of(agents, bars)
    market = kit.MinuteMarket(frames, first)
    rng, faults = random.Random(seed), Counter[str]()
    weights: list[Weight] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with kit.working(root, market, work) as (process, control, remote):
            control.send((agents, bars, share, trace))
            watched = psutil.Process(process.pid)
            while (word := control.recv()) != "over":
                if isinstance(word, Held):
                    weights.append(weigh(word, watched))
                    passed = time.monotonic() - began
                    say(f"  {word.bars} of {bars} bars, {passed:.0f} s: {weights[-1]}\n")
                    say("".join(f"    {line}\n" for line in word.grown))
                    continue
                place: int = word
                remote.do(lambda tws, place=place: market.play(place, tws))
                if rng.random() < 1.0 / FAULTS_EVERY and place - first < bars - 10:
                    name = rng.choice(sorted(FAULTS))
                    faults[name] += 1
                    remote.do(lambda tws, name=name: strike(tws, name))
                control.send(True)
        orders, fills, wrong = audit(root, market.exchange)
    return Soaked(bars, faults, weights, orders, fills, wrong, time.monotonic() - began)


def strike(tws: FakeTws, name: str) -> None:
    tws.faults.doubled.clear()
    FAULTS[name](tws)


def audit(root: Path, exchange: kit.MinuteExchange) -> tuple[int, Counter[str], list[str]]:
    """Hold the ledger against the broker's books; return orders, fills and every difference."""
    exchange.end_day()
    known = [*exchange.past_orders, *exchange.orders.values()]
    refs = Counter(one.ticket.order_ref for one in known)
    newest = {base_of(one.exec_id): one for one in exchange.past_executions}
    with LedgerReader(Home(root / "home").ledger) as ledger:
        orders = {one.order_ref: one for one in ledger.rows(rows.Order)}
        fills = ledger.rows(rows.Fill)
        books = {one.symbol: one for one in ledger.rows(rows.Equity)}
    booked: Counter[str] = Counter()
    for fill in fills:
        booked[base_of(fill.exec_id)] += fill.shares  # type: ignore[assignment]
    wrong = [f"{ref}: {n} times at the broker" for ref, n in refs.items() if n > 1]
    wrong += [f"{ref}: not in the ledger" for ref in refs if ref not in orders]
    wrong += [f"{o.order_ref}: fate unknown" for o in orders.values() if o.status == "intended"]
    for base in newest.keys() | booked.keys():
        told = newest[base].signed if base in newest else 0.0
        if told != booked[base]:
            wrong.append(f"{base}: broker {told}, ledger {booked[base]}")
    held = {at.symbol: at.shares for at in exchange.positions.values()}
    for symbol, book in books.items():
        if book.shares != held.get(symbol, 0.0):
            wrong.append(f"{symbol}: broker {held.get(symbol, 0.0)}, ledger {book.shares} shares")
    cash = exchange.cash_of(exchange.accounts[0])
    mine = sum(book.cash for book in books.values())
    if abs(cash - mine) > 1e-4:
        wrong.append(f"cash: broker {cash!r}, ledger {mine!r}")
    return len(orders), Counter(fill.symbol for fill in fills), wrong


def main() -> int:
    """Soak, and print what docs/reliability.md has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sessions", type=int, default=21, help="of 390 bars; default 21")
    parser.add_argument("--agents", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    parser.add_argument("--trace", action="store_true", help="print what grows, by place in code")
    given = parser.parse_args()

    def say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    bars = given.sessions * kit.SESSION_BARS
    found = soak(given.agents, bars, given.seed, say=say, trace=given.trace)
    sys.stdout.write("\n".join(picture(found.weights)) + "\n")
    sys.stdout.write(
        f"{found.bars} bars × {given.agents} agents in {found.seconds:.0f} s: {found.orders} "
        f"orders, {found.fills} fills, {found.faults.total()} faults\n"
        f"{verdict(found.weights)}\n"
        f"differences between ledger and broker: {len(found.wrong)}\n"
    )
    sys.stdout.writelines(f"  {one}\n" for one in found.wrong[:20])
    return 0 if not found.wrong and is_flat(found.weights) else 1


if __name__ == "__main__":
    sys.exit(main())
