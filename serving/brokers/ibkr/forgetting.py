"""Forgetting: what ``ib_async`` keeps of orders and fills that are over, so that memory stays flat.

Owns the only hands in the client's private state (``wrapper.trades``, ``permId2Trade``, ``fills``;
seen with 2.1.0, which never lets go of any). What trading needs of the past is in the order book
and the ledger. Call between two questions, in the link's thread.
"""

from collections.abc import Collection

from ib_async import IB

# Of each kind, the newest stay: a late word on one that is over still finds it. One on an older
# order raises no event, and is heard with the next answer about everything.
KEPT = 200


def forget(ib: IB, working: Collection[int], told: Collection[str], kept: int = KEPT) -> None:
    """Drop orders and fills that are over, but the newest.

    ``working``: permIds of the orders IBKR just called open, whatever their status says here (it
    calls live ones cancelled); ``told``: execIds it just told, and will tell again.
    """
    wrapper = ib.wrapper
    over = [
        key
        for key, trade in wrapper.trades.items()
        if trade.isDone() and trade.order.permId not in working
    ]
    for key in over[: max(len(over) - kept, 0)]:
        trade = wrapper.trades.pop(key)
        if wrapper.permId2Trade.get(trade.order.permId) is trade:
            del wrapper.permId2Trade[trade.order.permId]
    past = [exec_id for exec_id in wrapper.fills if exec_id not in told]
    for exec_id in past[: max(len(past) - kept, 0)]:
        del wrapper.fills[exec_id]
