"""Access: where TWS or IB Gateway listens, which account is traded, and whether that is allowed.

Owns the environment variables IB_HOST, IB_PORT, IB_CLIENT_ID, IB_ACCOUNT and TRADING_MODE. Paper is
the default; accounts of IBKR's paper trading begin with D. Opens no connection.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from core.errors import NotAllowed
from sources.gateway import HOST, PORTS, address, whole

Mode = Literal["paper", "live"]


@dataclass(frozen=True, slots=True)
class Access:
    """How a gateway is reached, and what for."""

    host: str = HOST
    port: int = PORTS["paper"]
    client_id: int = 1  # only the client that placed an order may cancel it: keep it
    account: str = ""  # empty: the only one there is
    mode: Mode = "paper"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Access":
        """Read the variables; raise ``ConfigError`` for one that makes no sense."""
        host, port = address(environment)
        access = cls(
            host=host,
            port=port,
            client_id=whole(environment, "IB_CLIENT_ID", 1),
            account=environment.get("IB_ACCOUNT") or "",
            mode="live" if environment.get("TRADING_MODE") == "live" else "paper",
        )
        if access.account:
            access.agrees_with([access.account])
        return access

    def agrees_with(self, accounts: Sequence[str]) -> str:
        """Return the account to trade among those logged in; raise ``NotAllowed`` on a mismatch."""
        if self.account and self.account not in accounts:
            raise NotAllowed(
                f"IB_ACCOUNT={masked(self.account)} is not among the accounts logged in "
                f"({', '.join(masked(one) for one in accounts)}); log in to it or change IB_ACCOUNT"
            )
        if not self.account and len(accounts) != 1:
            raise NotAllowed(
                f"{len(accounts)} accounts are logged in; name the one to trade with IB_ACCOUNT"
            )
        account = self.account or accounts[0]
        found: Mode = "paper" if account.startswith("D") else "live"
        if found != self.mode:
            raise NotAllowed(
                f"TRADING_MODE={self.mode}, but {masked(account)} is a {found} account; log in to "
                f"a {self.mode} account, or set TRADING_MODE={found} if that is what you want"
            )
        return account


def confirm_live(access: Access, typed: str) -> None:
    """Raise ``NotAllowed`` unless a person typed the account that live orders will go to."""
    if access.mode == "live" and (not access.account or typed.strip() != access.account):
        raise NotAllowed(
            "TRADING_MODE=live needs IB_ACCOUNT, and that account typed to confirm; "
            "nothing was started"
        )


def named(account: str) -> str:
    """Return a name of an account that tells it from others and does not give it away."""
    return f"{masked(account)} ({hashlib.sha256(account.encode()).hexdigest()[:12]})"


def masked(account: str) -> str:
    return account[:2] + "*" * max(len(account) - 4, 0) + account[-2:]
