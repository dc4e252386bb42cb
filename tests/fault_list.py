"""The faults: one list, from which they are run and docs/reliability.md has its table.

Each says what strikes, what the sleeve must tell, and how it ends.
"""

from collections.abc import Callable

from fake_tws import FakeTws, Once, Point, Reply, Request
from fake_tws import Ticket as Typed
from fault_kit import Act, Fault, Scene, nothing
from ibkr_kit import SYMBOL

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
         "is it logged in?", _heal(logged_out=False)),
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
    once("order is rejected (201)", Once.REJECT, "order refused"),
    once("order is invalid and dead (321)", Once.INVALID, "order refused",
         ("patience", "patience")),
    once("live order is called cancelled (10349)", Once.PRESET),
    once("order is stuck: IBKR says nothing", Once.STUCK),
    once("first status lacks the permId", Once.NO_PERM_ID),
    once("cancel is ignored", Once.IGNORE_CANCEL, "order waits", ("patience",)),
    once("fill crosses the cancel", Once.FILL_ON_CANCEL),
    Fault("order ids are given out again",
          tws(lambda gateway: gateway.exchange.forget_order_ids())),
    Fault("a person has an order of the same stock in TWS", tws(_type_order), "foreign order",
          waits=("look",)),
]  # fmt: skip

ANSWERS = [
    twice("executions are told twice", Reply.EXECUTION),
    twice("statuses are told twice", Reply.ORDER_STATUS),
    late("commissions come late", Reply.COMMISSION_REPORT),
    late("statuses come late and in reverse", Reply.ORDER_STATUS, newest_first=True),
    silent("open orders are not answered", Request.ALL_OPEN_ORDERS),
    silent("executions are not answered", Request.EXECUTIONS),
]

FAULTS = [*LINK, *ORDERS, *ANSWERS]
