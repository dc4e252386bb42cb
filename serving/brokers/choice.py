"""The choice of a broker: by name, with what the environment says of it.

Owns what must be sure before anything is connected: the mode of trading, its account, and a
person's word for live orders. Opens no connection.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from core.errors import NotAllowed
from serving.auction import cut_off, never
from serving.brokers.paper import PaperBroker
from serving.brokers.port import Broker

BrokerName = Literal["paper", "ibkr"]
Ask = Callable[[str], str]  # shows a person a question and returns what was typed


def nobody(question: str) -> str:
    """Return what nobody typed: where no person can be asked, live trading is refused."""
    return ""


def make_broker(
    name: BrokerName,
    environment: Mapping[str, str],
    ask: Ask = nobody,
    feed: str = "replay",
    calendar: str = "XNYS",
) -> Broker:
    """Return the broker ``name``, not connected yet.

    Raises ``ConfigError`` for variables that make no sense, ``NotAllowed`` where mode and account
    do not fit, where live orders were not confirmed, or would follow bars of the past (``feed``).
    """
    if name == "paper":
        return PaperBroker()
    from serving.brokers.ibkr import Access, IbkrBroker, confirm_live

    access = Access.from_environment(environment)
    if access.mode == "live":
        if feed == "replay":
            raise NotAllowed(
                "TRADING_MODE=live with --feed replay: live orders must not follow bars of the "
                "past; name a feed of the present"
            )
        typed = ask(
            "TRADING_MODE=live: orders will be sent with real money. "
            "Type the account number to confirm: "
        )
        confirm_live(access, typed)
    return IbkrBroker(access, too_late=never if feed == "replay" else cut_off(calendar))
