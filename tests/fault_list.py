"""The faults: one list, from which they are run and docs/reliability.md has its table.

Each says what strikes, what the sleeve must tell, and how it ends.
"""

import sqlite3
from collections.abc import Callable
from datetime import timedelta

import pytest
from fake_tws import FakeTws, Once, Point, Reply, Request
from fake_tws import Ticket as Typed
from fault_kit import Act, Fault, Scene, linked, nothing
from fault_worlds import AGENT_FAULTS, FEED_FAULTS, GATEWAY_FAULTS
from ibkr_kit import SYMBOL

from core.errors import CorruptFile

Do = Callable[[FakeTws], object]

FROZEN = ("heartbeat", "patience")  # how long a gateway is silent before it counts as frozen


def tws(act: Do) -> Act:
    """Strike the gateway."""
    return lambda scene: scene.do(act)


def cut(name: str, strike: Do, says: str = "link down", heal: Act = nothing) -> Fault:
    """The link is lost, sooner or later, and told of at once."""
    return Fault(name, tws(strike), says, heal)


def down(name: str, strike: Do, says: str, heal: Do) -> Fault:
    """The link is lost and stays away until it is healed; told again and again."""
    return Fault(name, tws(strike), says, tws(heal), waits=("connect",), lasts=True)


def once(name: str, fault: Once, says: str = "", waits: tuple[str, ...] = ()) -> Fault:
    return Fault(name, tws(lambda gateway: gateway.faults.once(fault)), says, waits=waits)


def late(name: str, *kinds: Reply, newest_first: bool = False) -> Fault:
    """What the gateway says of some kind comes only when all else is over."""
    return Fault(
        name,
        tws(lambda gateway: gateway.faults.held.update(kinds)),
        heal=tws(lambda gateway: gateway.release(newest_first=newest_first)),
    )


def twice(name: str, kind: Reply) -> Fault:
    return Fault(name, tws(lambda gateway: gateway.faults.doubled.add(kind)))


def silent(name: str, kind: Request) -> Fault:
    return Fault(
        name,
        tws(lambda gateway: gateway.faults.unanswered.add(kind)),
        "link down",
        tws(lambda gateway: gateway.faults.unanswered.clear()),
        waits=("look", "patience"),
    )


def drop(point: Point, times: int = 1) -> Do:
    return lambda gateway: gateway.faults.drop_at(point, times)


def _unlisten(gateway: FakeTws) -> None:
    gateway.refuse_connections()
    gateway.drop()


def _restart(gateway: FakeTws) -> None:
    gateway.stop()
    gateway.exchange.forget_order_ids()


def _leave(**faults: object) -> Do:
    """Drop the link, and let something stand in the way of the next one."""

    def act(gateway: FakeTws) -> None:
        for name, value in faults.items():
            setattr(gateway.faults, name, value)
        gateway.drop()

    return act


def _heal(**faults: object) -> Do:
    def act(gateway: FakeTws) -> None:
        for name, value in faults.items():
            setattr(gateway.faults, name, value)

    return act


def _corrected_unseen(gateway: FakeTws) -> None:
    gateway.faults.drop_at(Point.BEFORE_FILL)
    gateway.faults.once(Once.CORRECT)


def _overnight(scene: Scene) -> None:
    """Decide; the fill comes while the link is away, and midnight before the link is back."""
    scene.trading.close_bar()
    scene.do(_unlisten)
    for phase in (0, 1):
        scene.market.play(scene.trading.place, phase)
    scene.market.at += timedelta(days=1)
    scene.listen()
    linked(scene.trading)


def _jump(days: int) -> Act:
    """The sleeve's clock jumps while an order's fate is open."""

    def act(scene: Scene) -> None:
        scene.do(drop(Point.ORDER_ACCEPTED))
        scene.trading.close_bar()
        scene.skew = timedelta(days=days)
        linked(scene.trading)

    return act


def _fill_disk(scene: Scene) -> None:
    """Let SQLite find no room for another page, as on a full disk."""
    ledger = scene.trading.ledger
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")


def _lock(scene: Scene) -> None:
    other = sqlite3.connect(scene.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    scene.kept.append(other)


def _unlock(scene: Scene) -> None:
    other = scene.kept.pop()
    other.execute("ROLLBACK")
    other.close()


def _damage(at: float) -> Act:
    """The process dies; its ledger is damaged somewhere; it starts, refuses, gets its copy."""

    def act(scene: Scene) -> None:
        scene.trading.close_bar()
        scene.trading.close()
        whole = scene.path.read_bytes()
        place = int(at * len(whole)) // 4096 * 4096
        hurt = whole[:place] + bytes(255 - byte for byte in whole[place : place + 4096])
        scene.path.write_bytes(hurt + whole[place + 4096 :])
        sent = len(scene.order_refs())
        with pytest.raises(CorruptFile, match="the ledger is damaged"):
            scene.start()
        assert len(scene.order_refs()) == sent
        scene.path.write_bytes(whole)
        scene.start()
        linked(scene.trading)

    return act


def _move_alias(scene: Scene) -> None:
    """Another version takes over while the old one's order works; then the process dies."""
    scene.trading.close_bar()
    scene.trading.sleeve.trader.version = "2"
    linked(scene.trading)
    scene.restart()
    scene.trading.sleeve.trader.version = "2"
    linked(scene.trading)


def _other_account(scene: Scene) -> None:
    def swap(gateway: FakeTws) -> None:
        scene.kept.append(gateway.exchange.accounts)
        gateway.exchange.accounts = ("DU7654321",)
        gateway.drop()

    scene.do(swap)


def _first_account(scene: Scene) -> None:
    def swap(gateway: FakeTws) -> None:
        gateway.exchange.accounts = scene.kept.pop()

    scene.do(swap)


def _type_order(gateway: FakeTws) -> None:
    gateway.type_order(Typed(0, SYMBOL, "BUY", 50, "LMT", limit_price=1.0))


LINK = [
    cut("link drops while idle", lambda gateway: gateway.drop()),
    cut("link drops before an order", drop(Point.ORDER_ARRIVED)),
    cut("link drops after the order, before its acknowledgement", drop(Point.ORDER_ACCEPTED)),
    cut("link drops after the acknowledgement", drop(Point.ORDER_ACKNOWLEDGED)),
    cut("link drops three orders running", drop(Point.ORDER_ACCEPTED, 3)),
    cut("link drops before a fill is told", drop(Point.BEFORE_FILL)),
    cut("link drops before a cancel", drop(Point.CANCEL_ARRIVED)),
    cut("link drops after a cancel", drop(Point.CANCEL_ACCEPTED)),
    Fault("nothing listens", tws(_unlisten), "nothing listens at 127.0.0.1", Scene.listen,
          lasts=True),
    down("gateway accepts and never answers", _leave(hang_handshake=True),
         "accepts connections but does not answer", _heal(hang_handshake=False)),
    down("log-in expired: sessions without an account", _leave(logged_out=True),
         "is it logged in", _heal(logged_out=False)),
    down("log-in expired: the gateway hangs up", _leave(hang_up=True), "link down",
         _heal(hang_up=False)),
    down("client id is in use (326)", _leave(taken={7}), "326", _heal(taken=set())),
    down("gateway comes back without IBKR (1100)", _leave(cut_off=True), "1100",
         _heal(cut_off=False)),
    Fault("gateway restarts, as every day: port away, order ids anew", tws(_restart), "link down",
          Scene.listen, lasts=True),
    Fault("gateway freezes, sockets open", tws(lambda gateway: gateway.freeze()), "no answer",
          tws(lambda gateway: gateway.thaw()), waits=FROZEN),
    Fault("gateway loses IBKR, then subscriptions (1100, 1101)",
          tws(lambda gateway: gateway.announce(1100)), "1100",
          tws(lambda gateway: gateway.announce(1101)), lasts=True),
    Fault("gateway loses IBKR, keeps subscriptions (1100, 1102)",
          tws(lambda gateway: gateway.announce(1100)), "1100",
          tws(lambda gateway: gateway.announce(1102)), lasts=True),
    Fault("connection to the server breaks (2110)",
          tws(lambda gateway: gateway.announce(2110)), "2110",
          tws(lambda gateway: gateway.announce(1102)), lasts=True),
    cut("socket port is reset (1300)", lambda gateway: gateway.announce(1300), "1300"),
    cut("a data farm breaks (2103): no order depends on it",
        lambda gateway: gateway.announce(2103), ""),
]  # fmt: skip

ORDERS = [
    once("order is rejected (201)", Once.REJECT, "order refused.* 201"),
    once("order is rejected (201), and its end is told amid the answer to a question",
         Once.REJECT_AMID, "order refused.* 201"),
    once("order is invalid and dead (321)", Once.INVALID, "order refused",
         ("patience", "patience")),
    once("live order is called cancelled (10349)", Once.PRESET),
    once("order is stuck: IBKR says nothing", Once.STUCK),
    once("first status lacks the permId", Once.NO_PERM_ID),
    once("cancel is ignored", Once.IGNORE_CANCEL, "order waits", ("patience",)),
    once("fill crosses the cancel", Once.FILL_ON_CANCEL),
    Fault("order ids are given out again",
          tws(lambda gateway: gateway.exchange.forget_order_ids())),
    once("order for the open fills in part, the rest never", Once.PARTIAL),
    once("a person cancels our order in TWS", Once.BY_HAND, "order refused|order cut",
         ("look",)),
    Fault("a person has an order of the same stock in TWS", tws(_type_order), "foreign order",
          waits=("look",)),
]  # fmt: skip

DAYS = [
    Fault("an order fills while the link is away, and midnight comes before it is back", nothing,
          "It filled on a day whose executions IBKR no longer tells", goes_on=_overnight,
          stops=True),
    Fault("midnight comes before an order's acknowledgement is known",
          tws(drop(Point.ORDER_ACCEPTED)), "may have filled on a day", goes_on=_overnight,
          stops=True),
    Fault("the clock jumps a day ahead", nothing, "link down", goes_on=_jump(1)),
    Fault("the clock jumps a day back", nothing, "link down", goes_on=_jump(-1)),
]  # fmt: skip

MACHINE = [
    Fault("the ledger's disk is full", _fill_disk, "no space left", halts=True),
    Fault("the ledger is locked", _lock, "locked by another process", _unlock, halts=True),
    Fault("the ledger is damaged at its head", nothing,
          "the ledger is damaged", goes_on=_damage(0.0), halts=True),
    Fault("the ledger is damaged in its middle", nothing,
          "the ledger is damaged", goes_on=_damage(0.6), halts=True),
    Fault("the alias moves in the middle of an order, and the process dies", nothing,
          goes_on=_move_alias),
    Fault("the gateway comes back with another account", _other_account,
          "is not among the accounts|the session trades", _first_account, halts=True),
]  # fmt: skip

ANSWERS = [
    twice("executions are told twice", Reply.EXECUTION),
    twice("statuses are told twice", Reply.ORDER_STATUS),
    late("commissions come late", Reply.COMMISSION_REPORT),
    late("statuses come late and in reverse", Reply.ORDER_STATUS, newest_first=True),
    silent("open orders are not answered", Request.ALL_OPEN_ORDERS),
    silent("executions are not answered", Request.EXECUTIONS),
    late("executions come after all else", Reply.EXECUTION, Reply.COMMISSION_REPORT),
    Fault(
        "the answer about open orders comes after it was given up",
        tws(lambda gateway: gateway.faults.held.add(Reply.OPEN_ORDER_END)),
        "no answer about orders",
        tws(lambda gateway: gateway.release()),
        waits=("look", "patience"),
    ),
    once("a fill is corrected afterwards (execId .02)", Once.CORRECT),
    Fault("a fill and its correction come while the link is away", tws(_corrected_unseen),
          "link down"),
    once("a warning comes after the fill (399)", Once.WARN),
]  # fmt: skip

FAULTS = [
    *LINK,
    *ORDERS,
    *ANSWERS,
    *DAYS,
    *MACHINE,
    *AGENT_FAULTS,
    *FEED_FAULTS,
    *GATEWAY_FAULTS,
]
