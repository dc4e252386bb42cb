"""Where TWS or IB Gateway listens, as the environment says it: IB_HOST, IB_PORT, TRADING_MODE.

Owns those variables' meaning for everybody who connects. Opens no connection.
"""

from collections.abc import Mapping

from core.errors import ConfigError

PORTS = {"paper": 4002, "live": 4001}  # IB Gateway's own
HOST = "127.0.0.1"
DATA_CLIENT = "IB_DATA_CLIENT_ID"
USUAL_DATA_CLIENT = 71  # any but the one that trades: two with one id cannot be connected


def address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Return host and port; raise ``ConfigError`` for what makes no sense."""
    mode = environment.get("TRADING_MODE") or "paper"
    if mode not in PORTS:
        raise ConfigError(f"TRADING_MODE={mode}: expected `paper` or `live`")
    return environment.get("IB_HOST") or HOST, whole(environment, "IB_PORT", PORTS[mode])


def whole(environment: Mapping[str, str], name: str, otherwise: int) -> int:
    """Return a variable that must be a whole number, or ``otherwise`` where it is not set."""
    text = environment.get(name) or str(otherwise)
    if not text.isdecimal():
        raise ConfigError(f"{name}={text}: expected a whole number such as {otherwise}")
    return int(text)
