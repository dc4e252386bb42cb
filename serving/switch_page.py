"""The kill switch over HTTP, on loopback: ``POST /kill`` and ``GET /kill``, with a token.

Owns the page. A thread of its own writes the same file as everybody else, so nothing it does can
delay an order. There is no release here: that takes a person at the command line.
"""

import hmac
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from core.errors import ConfigError, StorageError
from core.home import Home
from serving import switch

PORT, TOKEN, DEFAULT_PORT = "RATCHET_KILL_PORT", "RATCHET_KILL_TOKEN", 9465
LOOPBACK = "127.0.0.1"
LARGEST = 4_096  # bytes of a request
SHORTEST_TOKEN = 16  # characters


class SwitchPage:
    """The page, while it is open."""

    def __init__(self, home: Home, token: str, port: int, now: Callable[[], datetime]) -> None:
        """``port`` 0 is any free one. Raises ``OSError`` where the port is taken."""
        page = type("Page", (_Page,), {"home": home, "token": token, "now": staticmethod(now)})
        self._server = ThreadingHTTPServer((LOOPBACK, port), page)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, name="kill switch", daemon=True)
        self._thread.start()
        self.address = f"http://{LOOPBACK}:{self._server.server_port}/kill"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5.0)


class _Page(BaseHTTPRequestHandler):
    home: Home
    token: str
    now: Callable[[], datetime]
    timeout = 5.0

    def do_GET(self) -> None:
        if self._allowed():
            found = switch.pressed(self.home)
            self._answer(200, {"on": found is not None, "words": found.words if found else ""})

    def do_POST(self) -> None:
        if not self._allowed():
            return
        try:
            length = min(int(self.headers.get("Content-Length") or 0), LARGEST)
            asked = json.loads(self.rfile.read(length) or b"{}")
            by, reason = str(asked.get("by", "HTTP")), str(asked.get("reason", ""))
            policy = asked.get("policy")
            if policy not in (None, *switch.POLICIES):
                raise ValueError(f"policy {policy!r}: expected {', '.join(switch.POLICIES)}")
        except (ValueError, AttributeError) as error:
            # Whoever asks for a stop gets one, whatever else he says.
            by, reason, policy = "HTTP", f"the request was odd ({error})", None
        try:
            made = switch.press(self.home, by, reason, self.now(), policy)
        except StorageError as error:
            self._answer(500, {"on": False, "error": str(error)})
            return
        self._answer(200, {"on": True, "words": made.words})

    def log_message(self, format: str, *args: Any) -> None:
        """What is asked is in kill.log."""

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.path != "/kill":
            self._answer(404, {"error": "there is only /kill"})
        elif not hmac.compare_digest(given.encode(), self.token.encode()):
            self._answer(403, {"error": f"send `Authorization: Bearer` and the value of {TOKEN}"})
        else:
            return True
        return False

    def _answer(self, code: int, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def page_of(
    home: Home, environment: Mapping[str, str], now: Callable[[], datetime]
) -> SwitchPage | None:
    """Open the page where the environment holds a token; raise ``ConfigError`` where it is poor."""
    token, named = environment.get(TOKEN, ""), environment.get(PORT, "")
    if not token:
        return None
    if len(token) < SHORTEST_TOKEN:
        raise ConfigError(f"{TOKEN}: expected {SHORTEST_TOKEN} characters or more")
    if named and not named.isdecimal():
        raise ConfigError(f"{PORT}={named}: expected a port number, 0 for any free one")
    port = int(named) if named else DEFAULT_PORT
    try:
        return SwitchPage(home, token, port, now)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"{PORT}={port}: the kill switch cannot listen there ({error}); name a free port"
        ) from error
