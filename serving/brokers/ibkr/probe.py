"""Probe: whether TWS or IB Gateway answers, and whether what is logged in may be traded.

Owns one short connection, read-only, under an id that trades nowhere. Orders and reads nothing.
"""

import asyncio
import os

from ib_async import IB, StartupFetch

from core.errors import BrokerUnavailable
from serving.brokers.ibkr.access import Access, masked
from sources.ibkr import silence

SECONDS = 5.0
FIRST_CLIENT, CLIENTS = 9_000, 900  # ids far from those that trade or fetch data


def probe(access: Access, seconds: float = SECONDS) -> str:
    """Return who is logged in; raise ``BrokerUnavailable`` or ``NotAllowed`` with what to do."""
    where = f"{access.host}:{access.port}"
    silence()  # told in our own words
    try:
        accounts, version = asyncio.run(_ask(access, seconds))
    except TimeoutError as error:
        raise BrokerUnavailable(
            f"{where} accepts connections but does not answer within {seconds:g} s; log in, and "
            "let it take API calls"
        ) from error
    account = access.agrees_with(accounts)
    return (
        f"{where}, server version {version}, account {masked(account)} ({access.mode}); trades as "
        f"client {access.client_id}"
    )


async def _ask(access: Access, seconds: float) -> tuple[list[str], int]:
    ib = IB()
    client_id = FIRST_CLIENT + os.getpid() % CLIENTS
    try:
        call = ib.connectAsync(
            access.host,
            access.port,
            clientId=client_id,
            timeout=seconds,
            readonly=True,
            fetchFields=StartupFetch(0),
        )
        await asyncio.wait_for(call, seconds)
        return ib.managedAccounts(), ib.client.serverVersion()
    finally:
        ib.disconnect()
