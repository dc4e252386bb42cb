"""The kill switch: a file that stops a home's trading, and stays until a person takes it away.

Owns ``KILL`` of a home and ``kill.log``, who pressed and released it when. A file, so that it
works while everything else is down: whoever trades looks for it all the time, and whoever starts
finds it. Any file of that name stops trading, an empty one too. Knows neither sleeves nor brokers.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from core.errors import NotAllowed, StorageError
from core.home import Home

Policy = Literal["hold", "protect", "flatten"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
SOMEBODY = "unknown"


@dataclass(frozen=True, slots=True)
class Press:
    """Who stopped the trading, and what is to become of orders and shares."""

    at: str  # ISO 8601, UTC
    by: str
    reason: str
    policy: Policy | None = None  # for every agent; None: each agent's own `when_stopped`

    @property
    def words(self) -> str:
        return f"by {self.by} at {self.at}" + (f": {self.reason}" if self.reason else "")


def press(home: Home, by: str, reason: str, now: datetime, policy: Policy | None = None) -> Press:
    """Stop trading; durable when this returns. Raises ``StorageError`` where it cannot be."""
    made = Press(now.astimezone(UTC).isoformat(timespec="seconds"), by, reason, policy)
    content = json.dumps(asdict(made)).encode() + b"\n"
    try:
        home.make(home.root)
        draft = home.root / "KILL.new"
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(home.kill)
    except OSError as error:
        raise StorageError(
            f"{home.kill}: cannot be written ({error}), so nothing was stopped; make it by hand: "
            f"`touch {home.kill}`"
        ) from error
    _log(home, "pressed", made.by, reason, made.at)
    return made


def pressed(home: Home) -> Press | None:
    """Return who stopped the trading; None while it may go on."""
    try:
        content = home.kill.read_bytes()
        changed = home.kill.stat().st_mtime
    except FileNotFoundError:
        return None
    except OSError:  # there, and not to be read: that stops as well
        return Press("", SOMEBODY, f"{home.kill} cannot be read")
    try:
        found = Press(**json.loads(content))
        if found.policy in (None, *POLICIES):
            return found
    except (ValueError, TypeError):
        pass
    at = datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds")
    return Press(at, SOMEBODY, f"{home.kill.name} was put there by hand")


def release(home: Home, by: str, reason: str, now: datetime) -> Press:
    """Let trading go on; return who had stopped it. Raises ``NotAllowed`` where nobody had."""
    found = pressed(home)
    if found is None:
        raise NotAllowed(f"{home.kill}: the kill switch is not on; there is nothing to release")
    if not by.strip():
        raise NotAllowed("the kill switch is released by a named person: --by NAME")
    _log(home, "released", by, reason, now.astimezone(UTC).isoformat(timespec="seconds"))
    try:
        home.kill.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{home.kill}: cannot be removed ({error})") from error
    return found


def _log(home: Home, what: str, by: str, reason: str, at: str) -> None:
    line = json.dumps({"at": at, "what": what, "by": by, "reason": reason})
    try:
        with (home.root / "kill.log").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        if what == "released":  # what is not written down has not been done by anybody
            raise StorageError(f"{home.root / 'kill.log'}: cannot be written ({error})") from error
