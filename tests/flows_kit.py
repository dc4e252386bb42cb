"""A real Prefect server, a real browser: what the tests of flows stand on."""

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from core.home import Home
from flows import servers
from flows.environment import prefect_environment
from flows.servers import Server

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-port=0",
)


@dataclass(frozen=True, slots=True)
class Served:
    """A home with a Prefect server and a runner that serves every deployment."""

    home: Home
    api: str
    page: str
    runner: Server


def wait_for(what: str, seconds: float, ready: Any) -> Any:
    """Return the first true answer of ``ready()``; fail the test when none comes in time."""
    limit = time.monotonic() + seconds
    while not (answer := ready()):
        if time.monotonic() > limit:
            pytest.fail(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)
    return answer


@contextlib.contextmanager
def serving_prefect(home: Home) -> Iterator[Served]:
    """Start the Prefect server of ``home`` and its runner; stop both."""
    prefect = servers.start_prefect(home, servers.free_port())
    with servers.stopping(prefect):
        prefect.wait_until_healthy()
        api = f"{prefect.note.url}/api"
        runner = servers.start_ratchet(
            home, "runner", ["flows.deployments"], prefect_environment(home, api)
        )
        with servers.stopping(runner):
            servers.write_notes(home, [prefect, runner])
            yield Served(home, api, prefect.note.url, runner)


class Page:
    """One page of a headless Chromium, driven over its debugging protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._calls = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        request = {"id": self._calls, "method": method, "params": parameters}
        self._socket.send(json.dumps(request))
        while True:
            reply = json.loads(self._socket.recv(timeout=30))
            if reply.get("id") == self._calls:
                return dict(reply["result"])

    def open(self, url: str) -> None:
        self.call("Page.enable")
        self.call("Page.navigate", url=url)

    def text(self) -> str:
        """Return what a person can read on the page now."""
        script = "document.body ? document.body.innerText : ''"
        return str(self.call("Runtime.evaluate", expression=script)["result"].get("value", ""))


def browser_or_skip() -> str:
    """Return the path of a Chromium; without one skip, or fail where skipping is forbidden."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        missing = f"none of {', '.join(BROWSERS)} is installed"
        if os.environ.get("RATCHET_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{missing}, and RATCHET_REQUIRE_BROWSER=1 forbids to skip")
        pytest.skip(missing)
    return found


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """Start a headless Chromium with a profile of its own and yield its page."""
    command = [browser_or_skip(), *QUIET, "--window-size=1400,1000", f"--user-data-dir={profile}"]
    with subprocess.Popen(
        [*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            port_file = profile / "DevToolsActivePort"
            wait_for("Chromium", 30, lambda: port_file.exists() and port_file.read_text())
            port = port_file.read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as reply:
                pages = [page for page in json.load(reply) if page["type"] == "page"]
            with connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()


def free_port_address() -> str:
    """Return an address of this machine where nobody answers."""
    return f"http://127.0.0.1:{servers.free_port()}"
