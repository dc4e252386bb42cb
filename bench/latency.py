"""How long an order takes: bar in to order on the socket, the ledger's write included.

    python -m bench.latency [--orders 10000] [--folder FOLDER]

A worker with one agent trades 1-minute bars through ``ib_async`` and the fake TWS of the tests,
each in a process of its own. Every bar asks for a new weight, so every bar sends an order: it is
put on the worker's queue, features and decision are computed (a 64×64 network, every indicator),
risk judges, the ledger commits the bar with the intent (synchronous = FULL), and the order's bytes
leave. Timed from the queue to the socket, by the wall's clock. The next bar comes once the fill of
this one's order is told and nothing is being asked any more: between real minutes there is time. So
that this does not take hours, the fake tells executions of TOLD_BARS minutes, not of a day.

An order waits for the disk once: its intent must be durable. What the same disk takes for a bare
write of two pages is measured in turn with the orders, before each; a ``--folder`` in memory
shows what is Ratchet's own, and proves nothing about a crash of the machine.

Also printed: how long the worker needs between two bars to seat another version whose bundle is
loaded (hot swap and rollback are the same), the ledger's note of it included; and how long no
order can be sent after a connection dropped.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import minutes_kit as kit
from ib_async.client import Client
from serving_kit import network

from features.observation import observation_columns
from features.scaler import Scaler
from features.spec import spec_from
from features.table import build_table
from registry.bundle import Bundle, load_bundle, save_bundle
from registry.card import ActionSpace, Card
from serving.agent import Answer, TradingAgent
from serving.brokers.ibkr import IbkrBroker
from serving.following import Published
from serving.history import History
from serving.ledger import Ledger
from serving.session import note_alias

SYMBOL = kit.symbols(1)[0]
HISTORY_SESSIONS = 21  # the features look 20 sessions back
PLACE_ORDER = "3\0"
SWAPS = 200
PAUSE_SECONDS = 0.01
TOLD_BARS = 30
PROBE = b"\0" * 8192  # two pages of a ledger; a bar with its intent touches more
LIMITS = {"stop_loss": None, "take_profit": None, "reduce_drawdown": None, "halt_drawdown": None}


class Disk:
    """What a durable write of its own costs, without a ledger."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "probe", os.O_WRONLY | os.O_CREAT, 0o600)
        self.milliseconds: list[float] = []

    def write(self) -> None:
        began = time.perf_counter()
        os.pwrite(self._file, PROBE, 0)
        os.fdatasync(self._file)
        self.milliseconds.append(1e3 * (time.perf_counter() - began))


class EveryBar(TradingAgent):
    """Decides as its policy does, then asks for another weight than the last."""

    def decide(self, state: Any, bar: Any) -> Answer:
        answer = super().decide(state, bar)
        weight = 0.3 if len(self._signal) % 2 else 0.6
        return Answer(answer.observation, answer.observation_sha256, weight, answer.score,
                      answer.confidence, answer.contributions)  # fmt: skip


def settings() -> kit.Params:
    return kit.settings(
        1, account={"cash": kit.CASH, "no_trade_band": 0.0}, risk=LIMITS,
        paper={"alias_poll_seconds": 0.5, "snapshot_seconds": 5.0},
    )  # fmt: skip


def bundle_in(folder: Path, bars: Any, seed: int = 1) -> Bundle:
    """Return a random network of the usual size, saved and loaded as the registry does."""
    spec = spec_from(settings(), interval="1m")
    rows = build_table(bars, spec, spec.interval).dropna().to_numpy()
    card = Card(
        agent=kit.agent_of(SYMBOL), algorithm="ppo", symbols=(SYMBOL,), signal_symbol=SYMBOL,
        interval="1m", action_space=ActionSpace("continuous"), dataset_sha256="d" * 64,
        commit="c" * 40, seed=seed, created_at="2020-01-01T00:00:00+00:00", trial=1,
    )  # fmt: skip
    policy = network(len(observation_columns(spec)), seed)
    return load_bundle(folder, save_bundle(folder, policy, spec, Scaler.fit(rows, spec), card))


def frames_for(orders: int) -> tuple[dict[str, Any], int]:
    """Return the bars, and the place of the first that is traded."""
    first = HISTORY_SESSIONS * kit.SESSION_BARS
    frame = kit.minute_bars(1, HISTORY_SESSIONS + -(-orders // kit.SESSION_BARS))
    return {SYMBOL: frame.iloc[: first + orders]}, first


def work(root: Path, port: int, control: Any) -> None:
    """The worker's process: trade, and tell the milliseconds of every order."""
    orders = int(control.recv())
    frames, first = frames_for(orders)
    bundle = bundle_in(root / "bundle", frames[SYMBOL].iloc[:first])
    disk = Disk(root)
    left: list[float] = []
    arrived: list[float] = []
    send = Client.sendMsg

    def timed(client: Client, message: str) -> None:
        send(client, message)
        if message and message.startswith(PLACE_ORDER):
            arrived.append(time.perf_counter())

    def leaving() -> None:
        if len(left) > len(arrived):  # a bar without an order
            left.pop()
        disk.write()
        left.append(time.perf_counter())

    Client.sendMsg = timed

    def seat(name: str, loaded: Bundle, signal: History, traded: History) -> EveryBar:
        return EveryBar(name, "1", loaded, signal, traded)

    worker = kit.make_worker(
        root, port, control, settings(), frames, first, bundle, seat, leaving, PAUSE_SECONDS
    )
    worker.run()
    count = min(len(left), len(arrived))
    orders_ms = [1e3 * (b - a) for a, b in zip(left[:count], arrived[:count], strict=True)]
    control.send((orders_ms, disk.milliseconds))


def order_milliseconds(orders: int, within: Path | None = None) -> tuple[list[float], list[float]]:
    """Trade so many bars; return the milliseconds from bar to socket, and those of bare writes."""
    frames, first = frames_for(orders)
    market = kit.MinuteMarket(frames, first, TOLD_BARS)
    with (
        tempfile.TemporaryDirectory(dir=within) as folder,
        kit.working(Path(folder), market, work) as (_, control, remote),
    ):
        control.send(orders)
        shown = time.monotonic()
        while True:
            told = control.recv()
            if isinstance(told, tuple):
                return told
            remote.do(lambda tws, place=told: market.play(place, tws))
            control.send(True)
            if time.monotonic() - shown > 10.0:
                shown = time.monotonic()
                sys.stderr.write(f"  {told - first} of {orders} bars\n")


def swap_milliseconds() -> list[float]:
    """Return how long another version takes to be seated and noted, its bundle being loaded."""
    frames, first = frames_for(1)
    bars, name = frames[SYMBOL].iloc[:first], kit.agent_of(SYMBOL)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        versions = [bundle_in(Path(folder) / str(seed), bars, seed) for seed in (1, 2)]
        history = History(kit.instrument(SYMBOL), bars)
        with Ledger(Path(folder) / "ledger.db") as ledger:
            for number in range(SWAPS):
                bundle = versions[number % 2]
                published = Published(str(number % 2 + 1), bundle.sha256)
                began = time.perf_counter()
                TradingAgent(name, published.version, bundle, history, history)
                note_alias(ledger, 1, name, published, bundle, None)
                found.append(1e3 * (time.perf_counter() - began))
    return found


def reconnect_milliseconds(drops: int = 20) -> list[float]:
    """Return how long orders are impossible after a dropped connection, the pause not counted."""
    frames, first = frames_for(1)
    market = kit.MinuteMarket(frames, first)
    found = []
    with kit.in_thread(market.tws) as remote:
        broker = IbkrBroker(kit.Access(port=remote.port, client_id=7), kit.PACE)
        broker.begin()
        try:
            for _ in range(drops):
                remote.do(lambda tws: tws.drop())
                began = time.perf_counter()
                while broker.ready:
                    time.sleep(0.0005)
                while not broker.ready:
                    time.sleep(0.0005)
                found.append(1e3 * (time.perf_counter() - began))
        finally:
            broker.close()
    return found


def row(name: str, milliseconds: list[float]) -> str:
    values = np.percentile(milliseconds, [50, 99, 99.9, 100])
    cells = " | ".join(f"{value:.2f}" for value in values)
    return f"| {name} | {len(milliseconds)} | {cells} |\n"


def main() -> None:
    """Print the table as docs/reliability.md has it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--orders", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where the ledger lies; a temporary one else")
    parser.add_argument("--json", action="store_true", help="every order's milliseconds instead")
    given = parser.parse_args()
    orders, writes = order_milliseconds(given.orders, given.folder)
    if given.json:
        sys.stdout.write(json.dumps(orders) + "\n")
        return
    retry = 1e3 * kit.PACE.retry
    rows = {
        "bar in → order on the socket": orders,
        "a bare durable write of 8 KiB to the same disk, in turn with these": writes,
        "another version takes the seat (hot swap, rollback)": swap_milliseconds(),
        f"link dropped → orders possible (pause of {retry:.0f} ms included)": (
            reconnect_milliseconds()
        ),
    }
    sys.stdout.write("| milliseconds | count | p50 | p99 | p99.9 | most |\n")
    sys.stdout.write("|---|--:|--:|--:|--:|--:|\n")
    sys.stdout.writelines(row(name, values) for name, values in rows.items())
    machine = platform.processor() or platform.machine()
    sys.stdout.write(f"\n{machine}, {os.cpu_count()} cores, Python {platform.python_version()}\n")


if __name__ == "__main__":
    main()
