"""Interactive Brokers behind the broker port."""

from serving.brokers.ibkr.access import Access, confirm_live
from serving.brokers.ibkr.broker import IbkrBroker
from serving.brokers.ibkr.link import Pace

__all__ = ["Access", "IbkrBroker", "Pace", "confirm_live"]
